"""Answers on disk, so that a diagnosis that was interrupted, or is asked for again, generates no answer twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from fedrag.diagnosis.diagnosed import Generated
from fedrag.files import storage_errors
from fedrag.rag.pipeline import Retrieved


class AnswerCache:
    """A file of answers: a line each, appended as they come. A torn last line, of a process that died, is left out.

    Args:
        folder: The folder of such files.
        key: All that answers depend on but question and passages: weights, adapter, prompt settings, machine.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.jsonl"
        self._known = dict(_lines(self._path))
        self._is_torn = self._path.is_file() and not self._path.read_bytes().endswith(b"\n")

    def get(self, asked: Retrieved) -> Generated | None:
        """Return the answer to a question with these passages; None: it was not asked yet."""
        return self._known.get(_name(asked))

    def add(self, answers: Iterable[tuple[Retrieved, Generated]]) -> None:
        """Keep answers.

        Raises:
            StorageError: They cannot be written.
        """
        found = {_name(asked): generated for asked, generated in answers}
        self._known |= found
        lines = [json.dumps({"asked": name, **asdict(one)}, ensure_ascii=False) for name, one in found.items()]
        with storage_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8", newline="\n") as file:
                file.write("\n" * self._is_torn + "".join(f"{line}\n" for line in lines))
        self._is_torn = False


def _name(asked: Retrieved) -> str:
    digest = hashlib.sha256(repr((asked.question, asked.passages, asked.scores)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _lines(path: Path) -> Iterable[tuple[str, Generated]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for line in file:
            try:
                row = json.loads(line)
                yield row.pop("asked"), Generated(**row)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
