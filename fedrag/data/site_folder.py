"""Loads and validates a site's folder.

A site is a folder named after it:

```
passages.jsonl     {"id", "text", "title"?, "source"?}               at least one
train.jsonl        {"id", "question", "answers": [..], "passage_ids"?: [..], "hard_negative_ids"?: [..], "origin"?,
                    "subject"?}
validation.jsonl   the same                                          absent or empty: no such questions
test.jsonl         the same; here and in validation.jsonl no question that a model wrote or answered
unanswered.jsonl   {"id", "question", "passage_ids"?, "subject"?}    absent or empty: no such questions
site.json          {"language"}                                      absent: the scenario's language
```

A site may have no question at all: documents come first, and questions later. It can be searched and asked; what needs
questions says so.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fedrag.data.jsonl import OnProblem, raise_data_error, read_objects
from fedrag.data.questions import distinct_questions, question_key
from fedrag.errors import DataError
from fedrag.types import CANARY, LANGUAGE_PATTERN, ORIGINS, SPLITS, TRAIN_ONLY, Passage, Question, Site, Split

PASSAGES_FILE = "passages.jsonl"
UNANSWERED_FILE = "unanswered.jsonl"
SITE_FILE = "site.json"
QUESTION_FILES: dict[Split, str] = {split: f"{split}.jsonl" for split in SPLITS}

_Row = TypeVar("_Row", Passage, Question)


@dataclass(frozen=True, slots=True)
class NumberedRows:
    """A folder's rows by line number."""

    passages: dict[int, Passage]
    questions: dict[Split, dict[int, Question]]
    unanswered: dict[int, Question]
    language: str = ""


def load_site(folder: Path) -> Site:
    """Load one site; its name is the folder's.

    Raises:
        DataError: The data is malformed; the message names file and line of the first fault.
    """
    rows = read_site(folder, raise_data_error)
    train, validation, test = (tuple(rows.questions[split].values()) for split in SPLITS)
    known = {question_key(question.question) for question in (*train, *validation, *test)}
    asked = (question for question in rows.unanswered.values() if question_key(question.question) not in known)
    passages = tuple(rows.passages.values())
    unanswered = tuple(distinct_questions(asked))
    return Site(site_name(folder), passages, train, validation, test, rows.language, unanswered=unanswered)


def load_sites(root: Path, only: Sequence[str] = (), hold_out: Sequence[str] = ()) -> list[Site]:
    """Load the sites below a folder, sorted by name; see `chosen_folders` for the arguments.

    Raises:
        DataError: A site is malformed, a name is unknown, or no site is left.
    """
    return [load_site(folder) for folder in chosen_folders(root, only, hold_out)]


def chosen_folders(root: Path, only: Sequence[str] = (), hold_out: Sequence[str] = ()) -> list[Path]:
    """Return the folders of the sites that take part, sorted by name.

    Args:
        root: A folder of site folders, or a single site's folder.
        only: Names of the sites to take; empty: all of them.
        hold_out: Names of sites to leave out.

    Raises:
        DataError: A name is unknown, or no site is left.
    """
    folders = {site_name(folder): folder for folder in site_folders(root)}
    for name in (*only, *hold_out):
        if name not in folders:
            nearest = difflib.get_close_matches(name, folders, n=1, cutoff=0.0)[0]
            raise DataError(f'{root}: no site "{name}" (nearest: {nearest})')
    chosen = [name for name in folders if (not only or name in only) and name not in hold_out]
    if not chosen:
        raise DataError(f"{root}: no site is left without the held-out ones; hold fewer out")
    return [folders[name] for name in sorted(chosen)]


def site_folders(root: Path) -> list[Path]:
    """Return the site folders below a folder, sorted by name; for a site's own folder, return that alone.

    Every folder counts unless its name begins with a dot, so that a site that lost its passages is reported, not
    skipped.
    """
    _require_folder(root)
    if (root / PASSAGES_FILE).exists():
        return [root]
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise DataError(
            f"{root}: holds no site (a folder with {PASSAGES_FILE} in it); fedrag new DIR writes two to look at"
        )
    return folders


def site_name(folder: Path) -> str:
    """Return the name of the site in a folder, even of `.`; a link keeps its own name."""
    return Path(os.path.abspath(folder)).name


def hash_site(folder: Path) -> str:
    """Return the sha256 over a site's files; a missing question file counts as an empty one."""
    _require_folder(folder)
    digest = hashlib.sha256()
    further = (name for name in (UNANSWERED_FILE, SITE_FILE) if (folder / name).exists())
    for name in (PASSAGES_FILE, *QUESTION_FILES.values(), *further):
        try:
            with (folder / name).open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            content = hashlib.sha256().hexdigest()
        except OSError as error:
            raise DataError(f"{folder / name}: cannot be read: {error.strerror}") from None
        digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()


def read_site(folder: Path, on_problem: OnProblem) -> NumberedRows:
    """Read all well-formed rows of a site, and report the faults of the others."""
    _require_folder(folder)
    passages_file = folder / PASSAGES_FILE
    passages: dict[int, Passage] = {}
    passage_ids: dict[str, int] = {}
    if passages_file.exists():
        passages, passage_ids = _read_rows(passages_file, parse_passage, on_problem)
        if not passage_ids:
            on_problem(f"{passages_file}: holds no passage; a site needs at least one")
    else:
        on_problem(
            f'{passages_file}: no such file; a site needs one, a line per passage: {{"id": "p1", "text": "..."}}'
        )

    questions: dict[Split, dict[int, Question]] = {}
    for split, name in QUESTION_FILES.items():
        path, parse = folder / name, partial(_parse_split, split, passage_ids)
        questions[split] = _read_rows(path, parse, on_problem)[0] if path.exists() else {}
    path, parse = folder / UNANSWERED_FILE, partial(_parse_unanswered, passage_ids)
    unanswered = _read_rows(path, parse, on_problem)[0] if path.exists() else {}
    return NumberedRows(passages, questions, unanswered, _read_language(folder / SITE_FILE, on_problem))


def _parse_split(split: Split, passage_ids: Collection[str], row: dict[str, Any]) -> Question:
    """Parse one row of a split's file; what a model or chance made may stand in training alone."""
    question = parse_question(row, passage_ids)
    if split != "train" and question.origin in TRAIN_ONLY:
        made = "it is made up" if question.origin == CANARY else "a model made this question or its answer"
        raise ValueError(f'"origin" is "{question.origin}": {made}, so it may stand in {QUESTION_FILES["train"]} alone')
    return question


def _parse_unanswered(passage_ids: Collection[str], row: dict[str, Any]) -> Question:
    """Parse one row of the questions that nobody answered."""
    if row.get("answers"):
        raise ValueError(f'"answers" holds one: an answered question stands in {QUESTION_FILES["train"]}')
    labels = _ids(row, "passage_ids")
    _require_known(labels, passage_ids)
    return Question(_text(row, "id"), _text(row, "question"), (), labels, subject=_subject(row))


def _read_language(path: Path, on_problem: OnProblem) -> str:
    """Return the language that a site names, or "" where it names none."""
    if not path.exists():
        return ""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        on_problem(f"{path}: cannot be read as JSON: {error}")
        return ""
    language = content.get("language", "") if isinstance(content, dict) else None
    unknown = sorted(set(content) - {"language"}) if isinstance(content, dict) else []
    if unknown or not isinstance(language, str) or (language and not re.fullmatch(LANGUAGE_PATTERN, language)):
        on_problem(f'{path}: expected {{"language": "vi"}} with the code of a language')
        return ""
    return language


def read_passages(path: Path, on_problem: OnProblem = raise_data_error) -> dict[int, Passage]:
    """Read a file of passages; return them by line number."""
    return _read_rows(path, parse_passage, on_problem)[0]


def parse_passage(row: dict[str, Any]) -> Passage:
    """Parse one row of `passages.jsonl`; a ValueError says what is wrong with it."""
    title = row.get("title")
    if title is not None and not isinstance(title, str):
        raise ValueError('"title" must be a string')
    has_title = title is not None and bool(title.strip())
    source = _text(row, "source") if row.get("source") else ""
    return Passage(_text(row, "id"), _text(row, "text"), _text(row, "title") if has_title else None, source)


def parse_question(row: dict[str, Any], passage_ids: Collection[str]) -> Question:
    """Parse one row of a question file; a ValueError says what is wrong with it."""
    labels, negatives = _ids(row, "passage_ids"), _ids(row, "hard_negative_ids")
    answers = () if labels and row.get("answers") is None else _texts(row, "answers")
    origin = row.get("origin") or ""
    if origin not in ORIGINS:
        raise ValueError(f'"origin" must be one of {", ".join(filter(None, ORIGINS))}, or absent: people asked it')
    question = Question(_text(row, "id"), _text(row, "question"), answers, labels, negatives, origin, _subject(row))
    if not answers and not labels:
        raise ValueError('"answers" must be a non-empty list of strings, unless "passage_ids" names the right passages')
    _require_known(labels + negatives, passage_ids)
    for label in negatives:
        if label in labels:
            raise ValueError(f'passage "{label}" is both right ("passage_ids") and wrong ("hard_negative_ids")')
    return question


def _require_known(labels: Sequence[str], passage_ids: Collection[str]) -> None:
    for label in labels:
        if label not in passage_ids:
            raise ValueError(f'unknown passage id "{label}": no line of {PASSAGES_FILE} has it')


def _subject(row: dict[str, Any]) -> str:
    """Return whom a question is about, or "" where it names nobody."""
    return _text(row, "subject") if row.get("subject") not in (None, "") else ""


def _ids(row: dict[str, Any], key: str) -> tuple[str, ...]:
    return () if row.get(key) is None else tuple(dict.fromkeys(_texts(row, key)))


def _read_rows(
    path: Path, parse: Callable[[dict[str, Any]], _Row], on_problem: OnProblem
) -> tuple[dict[int, _Row], dict[str, int]]:
    """Return the well-formed rows by line number, and the first line of every readable id."""
    rows: dict[int, _Row] = {}
    first_lines: dict[str, int] = {}
    for line, row in read_objects(path, on_problem):
        try:
            identity = _text(row, "id")
            first = first_lines.setdefault(identity, line)
            if first != line:
                raise ValueError(f'duplicate id "{identity}" (first on line {first})')
            rows[line] = parse(row)
        except ValueError as error:
            on_problem(f"{path}:{line}: {error}")
    return rows, first_lines


def _text(row: dict[str, Any], key: str) -> str:
    """Return a field that must be a non-blank string."""
    if key not in row:
        raise ValueError(f'"{key}" is missing')
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'"{key}" must be a non-empty string')
    return _encodable(value, key)


def _texts(row: dict[str, Any], key: str) -> tuple[str, ...]:
    """Return a field that must be a list of non-blank strings."""
    if key not in row:
        raise ValueError(f'"{key}" is missing')
    values = row[key]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f'"{key}" must be a {"non-empty " if key == "answers" else ""}list of strings')
    if not all(value.strip() for value in values):
        raise ValueError(f'"{key}" holds a blank string')
    return tuple(_encodable(value, key) for value in values)


def _encodable(value: str, key: str) -> str:
    """Refuse half a surrogate pair: JSON can spell it, but no tokenizer can read it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f'"{key}" holds half a surrogate pair, which is no character') from None
    return value


def _require_folder(folder: Path) -> None:
    """Raise a DataError unless the path is a folder."""
    if not folder.exists():
        where = "" if folder.is_absolute() else f" in {Path.cwd()}"
        raise DataError(f"{folder}: no such folder{where}; fedrag data import makes one from other data")
    if not folder.is_dir():
        raise DataError(f"{folder}: is a file; the folder of a site or of sites was expected")
