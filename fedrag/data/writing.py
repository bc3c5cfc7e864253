"""Writes sites, and further questions of one, to disk: everything or nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from fedrag.data.jsonl import read_objects
from fedrag.data.site_folder import PASSAGES_FILE, QUESTION_FILES, SITE_FILE, UNANSWERED_FILE
from fedrag.errors import DataError, StorageError
from fedrag.files import rewrite
from fedrag.locks import held_without_trace
from fedrag.types import Passage, Question, Site

_FIELDS = {field.name for kind in (Passage, Question) for field in fields(kind)}


def write_site(folder: Path, site: Site) -> None:
    """Write one site's files into a new folder.

    Raises:
        DataError: The folder exists and is not empty.
        StorageError: The disk is full or not writable.
    """
    with new_folder(folder) as partial:
        _write_files(partial, site)


def write_sites(root: Path, sites: Sequence[Site]) -> None:
    """Write a new folder of site folders; it raises the errors of `write_site`."""
    names = [site.name for site in sites]
    for name in names:
        if not name or name.startswith(".") or name != Path(name).name or names.count(name) > 1:
            raise DataError(f'{root}: "{name}" cannot be the name of a site\'s folder, or is there twice')
    with new_folder(root) as partial:
        for site in sites:
            (partial / site.name).mkdir()
            _write_files(partial / site.name, site)


def alone_at_site(folder: Path) -> AbstractContextManager[None]:
    """Hold a site's folder for the one process that adds questions to it; raise DataError where another does."""
    busy = DataError(f"{folder}: another fedrag adds questions to this site; let it end first")
    return held_without_trace(folder, busy)


def append_training(folder: Path, questions: Sequence[Question]) -> None:
    """Add questions to a site's train.jsonl, all of them or none; what stands there stays, byte for byte.

    Raises:
        StorageError: The disk is full or the folder is not writable.
    """
    path = folder / QUESTION_FILES["train"]
    before = path.read_bytes() if path.exists() else b""
    ending = b"\n" if before and not before.endswith(b"\n") else b""
    added = b"".join(map(_line, map(question_row, questions)))
    rewrite(path, before + ending + added, like=folder / PASSAGES_FILE)


def keep_training(folder: Path, keeps: Callable[[dict[str, Any]], bool]) -> None:
    """Take those lines out of a site's train.jsonl that are not to be kept; the others stay, byte for byte.

    Raises:
        StorageError: The disk is full or the folder is not writable.
    """
    path = folder / QUESTION_FILES["train"]
    gone = {number for number, row in read_objects(path) if not keeps(row)}
    with path.open("rb") as file:
        kept = [line for number, line in enumerate(file, start=1) if number not in gone]
    rewrite(path, b"".join(kept))


def rewrite_site(folder: Path, site: Site, gone: Sequence[Passage]) -> None:
    """Replace the passages and questions of a site, one file at a time.

    Whoever loads the site meanwhile, or after an interruption, finds every passage that a question names. What a line
    holds beside the fields that are known stays in it.

    Args:
        folder: The site's folder; what else is in it stays.
        site: What the site becomes.
        gone: The passages that it had and has no longer.

    Raises:
        StorageError: The disk is full or not writable.
    """
    _rewrite(folder / PASSAGES_FILE, map(_passage_row, (*site.passages, *gone)))
    for split, name in QUESTION_FILES.items():
        _rewrite(folder / name, map(question_row, site.split(split)))
    if (folder / UNANSWERED_FILE).exists():
        _rewrite(folder / UNANSWERED_FILE, map(question_row, site.unanswered))
    _rewrite(folder / PASSAGES_FILE, map(_passage_row, site.passages))


def rewrite_passages(folder: Path, passages: Sequence[Passage]) -> None:
    """Write the passages of a site whose folder may hold questions already; its folder is made if it is not there.

    Raises:
        StorageError: The disk is full or not writable.
    """
    _rewrite(folder / PASSAGES_FILE, map(_passage_row, passages))


def require_free(folder: Path) -> None:
    """Raise a DataError unless the folder is new or empty."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise DataError(f"{folder}: exists already and is not an empty folder; remove it or choose another")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder to write into; at the end, its content moves to the new folder.

    Raises:
        DataError: The folder exists and is not empty.
        StorageError: The disk is full or not writable.
    """
    require_free(folder)
    folder = Path(os.path.abspath(folder))
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        if folder.is_dir():  # not replaced: it may be the working directory of a shell
            for path in partial.iterdir():
                os.replace(path, folder / path.name)
        else:
            os.replace(partial, folder)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_files(folder: Path, site: Site) -> None:
    """Write the files of a site; a split without questions is an empty file."""
    _write_lines(folder / PASSAGES_FILE, map(_passage_row, site.passages))
    if site.language:
        _write_lines(folder / SITE_FILE, [{"language": site.language}])
    for split, name in QUESTION_FILES.items():
        _write_lines(folder / name, map(question_row, site.split(split)))
    if site.unanswered:
        _write_lines(folder / UNANSWERED_FILE, map(question_row, site.unanswered))


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("wb") as file:
        file.writelines(map(_line, rows))


def _rewrite(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    before = {row["id"]: row for _, row in read_objects(path)} if path.exists() else {}
    more = {identity: {key: row[key] for key in row.keys() - _FIELDS} for identity, row in before.items()}
    lines = [_line(row | more.get(row["id"], {})) for row in rows]
    rewrite(path, b"".join(lines), like=path.parent / PASSAGES_FILE)


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _passage_row(passage: Passage) -> dict[str, Any]:
    row = {"id": passage.id, "text": passage.text, "title": passage.title, "source": passage.source}
    return {key: value for key, value in row.items() if value}


def question_row(question: Question) -> dict[str, Any]:
    """Return a question as a line of a file holds it."""
    row: dict[str, Any] = {"id": question.id, "question": question.question}
    lists = {"answers": question.answers, "passage_ids": question.passage_ids}
    lists["hard_negative_ids"] = question.hard_negative_ids
    row |= {key: list(values) for key, values in lists.items() if values}
    return row | {key: value for key in ("origin", "subject") if (value := getattr(question, key))}
