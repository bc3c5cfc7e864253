"""Reads questions with their answers from a table."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedrag.data.importers.draft import clean, told_answers
from fedrag.data.importers.fields import look_up, site_of
from fedrag.data.importers.row_file import open_rows
from fedrag.errors import DataError

_QUESTION = (
    *("question", "questions", "query", "user_input", "frage", "câu hỏi", "问题", "問題", "提问", "質問", "질문"),
    *("pregunta", "pergunta", "domanda", "вопрос", "السؤال", "प्रश्न", "q"),
)
_ANSWER = (
    *("answer", "answers", "reference", "ground_truth", "antwort", "trả lời", "câu trả lời", "đáp án", "答案", "回答"),
    *("답변", "réponse", "respuesta", "resposta", "risposta", "ответ", "الإجابة", "उत्तर", "a"),
)
"""What the columns are usually called."""


@dataclass(frozen=True, slots=True)
class QuestionColumns:
    """Which columns hold what; None: the one that is called so in one of many languages."""

    question: str | None = None
    answer: str | None = None
    site: str | None = None
    """Name of the site; None: the table does not say."""


@dataclass(frozen=True, slots=True)
class AskedQuestion:
    """A row: a question with its answers, and the site that the row names, or ""."""

    question: str
    answers: tuple[str, ...]
    site: str = ""


@dataclass(slots=True)
class QuestionTable:
    """The questions of a table.

    Attributes:
        questions: In order of the rows.
        n_skipped: Rows that lack a question or an answer.
        notes: What was read otherwise than one might expect.
    """

    questions: list[AskedQuestion] = field(default_factory=list)
    n_skipped: int = 0
    notes: list[str] = field(default_factory=list)


def read_question_table(
    path: Path, columns: QuestionColumns = QuestionColumns(), encoding: str | None = None
) -> QuestionTable:
    """Read a table of the kinds in `READERS`, one question per row.

    Args:
        path: The file; its ending says what it is.
        columns: Which columns hold what.
        encoding: Encoding of a text file; None: what its byte order mark says, else UTF-8.

    Raises:
        DataError: It cannot be read, or a column is missing.
    """
    table = QuestionTable()
    for place, row in open_rows(path, None, encoding, table.notes.append):
        question = " ".join(_values(row, columns.question, _QUESTION, "--question", place))
        answers = told_answers(map(clean, _values(row, columns.answer, _ANSWER, "--answer", place)))
        if clean(question) and answers:
            site = site_of(row, columns.site, place, "")
            table.questions.append(AskedQuestion(clean(question), tuple(dict.fromkeys(answers)), site))
        else:
            table.n_skipped += 1
    return table


def _values(row: Mapping[str, Any], column: str | None, usual: Sequence[str], option: str, place: str) -> list[str]:
    """Return the texts in a column that is named, or has one of the usual names."""
    name = column or next(_called(row, usual), "")
    try:
        return look_up(row, name)
    except KeyError:
        wanted = f'"{column}"' if column else f'"{usual[0]}"'
        raise DataError(
            f"{place}: no column {wanted}; name the right one of {', '.join(map(str, row))} with {option}"
        ) from None


def _called(row: Mapping[str, Any], usual: Sequence[str]) -> Iterator[str]:
    names = {unicodedata.normalize("NFC", str(name)).strip().casefold(): name for name in row}
    return (names[name] for name in usual if name in names)
