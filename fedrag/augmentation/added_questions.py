"""Adds questions to a site's train.jsonl: all of a batch or none, and never one that stands there already."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from fedrag.data.site_folder import QUESTION_FILES
from fedrag.data.writing import question_row
from fedrag.errors import DataError
from fedrag.files import write_text
from fedrag.locks import held_alone
from fedrag.types import Question, Site


def alone_at_site(folder: Path) -> AbstractContextManager[None]:
    """Hold a site's folder for the one process that adds questions to it; raise DataError where another does."""
    return held_alone(folder, DataError(f"{folder}: another fedrag adds questions to this site; let it end first"))


class AddedQuestions:
    """The training questions of a site, to which more are added.

    Args:
        folder: The site's folder.
        site: Its data.
    """

    def __init__(self, folder: Path, site: Site) -> None:
        self._path = folder / QUESTION_FILES["train"]
        self._ids = {question.id for question in site.train}

    def add(self, questions: Sequence[Question]) -> None:
        """Append questions to the file, with ids that no other has; the file is written whole or not at all.

        Raises:
            StorageError: It cannot be written; it is then as it was.
        """
        if not questions:
            return
        before = self._path.read_bytes().decode("utf-8") if self._path.exists() else ""
        if before and not before.endswith("\n"):
            before += "\n"
        rows = [json.dumps(question_row(self._with_own_id(q)), ensure_ascii=False) for q in questions]
        write_text(self._path, before + "".join(f"{row}\n" for row in rows))

    def _with_own_id(self, question: Question) -> Question:
        identity, number = question.id, 1
        while identity in self._ids:
            number += 1
            identity = f"{question.id}-{number}"
        self._ids.add(identity)
        return replace(question, id=identity)
