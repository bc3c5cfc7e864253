"""Adds questions to a site's train.jsonl, one command at a time, each with an id of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedrag.data.writing import append_training
from fedrag.types import Question, Site


class AddedQuestions:
    """The training questions of a site, to which more are added.

    Args:
        folder: The site's folder.
        site: Its data.
    """

    def __init__(self, folder: Path, site: Site) -> None:
        self._folder = folder
        self._ids = {question.id for question in site.train}

    def add(self, questions: Sequence[Question]) -> None:
        """Append questions to the file, with ids that no other has; all of them or none.

        Raises:
            StorageError: It cannot be written; it is then as it was.
        """
        if questions:
            append_training(self._folder, [self._with_own_id(question) for question in questions])

    def _with_own_id(self, question: Question) -> Question:
        identity, number = question.id, 1
        while identity in self._ids:
            number += 1
            identity = f"{question.id}-{number}"
        self._ids.add(identity)
        return replace(question, id=identity)
