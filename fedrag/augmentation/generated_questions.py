"""Writes questions from a site's passages and keeps those that hold: a batch after the other, each kept at once.

A question is kept if it is new at its site, the retriever finds its passage with it, and the answer that the model then
gives from the passage stands in it (round-trip consistency, Alberti et al. 2019; Dai et al. 2022 for the retriever).
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedrag.augmentation.added_questions import AddedQuestions
from fedrag.augmentation.question_checks import clean_question, is_about, shorten_answer
from fedrag.augmentation.tried_texts import TriedTexts
from fedrag.data.chunking import Chunk, chunk_passages
from fedrag.data.splitting import normalise_question
from fedrag.display import Display
from fedrag.models.retriever import Retriever
from fedrag.rag.pipeline import retrieve
from fedrag.retrieval.index import PassageIndex
from fedrag.seeding import derive_seed
from fedrag.types import Question, Site

KEPT = "kept"
WHY_NOT = {
    "no question": "no question was written",
    "not about it": "the question names nothing of its passage",
    "known": "the site has the question already",
    "held out": "the question stands in validation or test",
    "not found": "the retriever does not find the passage",
    "no answer": "no answer stands in the passage, or the question holds it",
}
"""Why a question is left out, in words."""


class QuestionWriter(Protocol):
    """Writes questions about passages, and answers them."""

    key: str
    """What its texts depend on beside the passages."""
    at_once: int
    """Passages that it is given at once."""

    def questions(self, passages: Sequence[str]) -> list[str]:
        """Return what it writes when asked for a question about each passage."""

    def answers(self, questions: Sequence[str], passages: Sequence[str]) -> list[str]:
        """Return its answer to each question, from its passage."""


@dataclass(frozen=True, slots=True)
class Search:
    """How a passage is found.

    Attributes:
        retriever: Finds it.
        index: The index of the site's passages.
        overlap: Tokens that neighbouring chunks of a long passage share.
        top_k: The passage must be among so many.
    """

    retriever: Retriever
    index: PassageIndex
    overlap: int
    top_k: int

    @property
    def key(self) -> str:
        """What is found depends on it, beside the passages."""
        return f"{self.retriever.passage_key()}|{self.index.by}|{self.overlap}|{self.top_k}"

    def finds(self, questions: Sequence[str], chunks: Sequence[Chunk]) -> list[bool]:
        """Return whether each question finds the passage of its chunk."""
        found = retrieve(self.retriever, self.index, questions, self.top_k)
        return [chunk.passage_id in {hit.passage_id for hit in hits} for hits, chunk in zip(found, chunks, strict=True)]


@dataclass(frozen=True, slots=True)
class Written:
    """What was written at a site, by this command and by earlier ones with the same settings.

    Attributes:
        pieces: Pieces of passages there are to write about.
        results: How many of those that were tried were kept, or left out by why.
        added: Questions that this command added.
    """

    pieces: int
    results: Counter[str]
    added: int

    @property
    def lines(self) -> list[str]:
        """What a person wants to know of it."""
        tried = sum(self.results.values())
        lines = [f"{self.results[KEPT]:,} questions kept, of {tried:,} pieces tried; the passages have {self.pieces:,}"]
        left_out = [f"{why}: {self.results[code]:,}" for code, why in WHY_NOT.items() if self.results[code]]
        return lines + [f"  {line}" for line in left_out]


def write_questions(
    folder: Path,
    site: Site,
    writer: QuestionWriter,
    search: Search,
    *,
    limit: int | None,
    seed: int,
    display: Display,
) -> Written:
    """Write questions and add those that are kept to the site's train.jsonl, marked as generated.

    It goes on where an earlier call with the same writer and search was stopped.

    Args:
        folder: The site's folder.
        site: Its data.
        writer: Writes and answers.
        search: Must find the passage with the question.
        limit: Most questions to keep, those of earlier calls with the same settings counted; None: no limit.
        seed: Seed of the order of the passages.
        display: Shows progress.

    Raises:
        StorageError: A file cannot be written; what was kept stays.
        ServiceError: The writer's endpoint fails; what was kept stays.
    """
    chunks = _chunks(site, search)
    random.Random(derive_seed(seed, "questions")).shuffle(chunks)
    texts = [chunk.text for chunk in chunks]
    tried = TriedTexts(folder, f"questions|{writer.key}|{search.key}")
    added = AddedQuestions(folder, site)
    batch = _Batch(site, writer, search)
    kept_before = tried.count(texts)[KEPT]
    kept, left = kept_before, [chunk for chunk in chunks if tried.result(chunk.text) is None]
    for start in range(0, len(left), writer.at_once):
        if limit is not None and kept >= limit:
            break
        display.progress("passages", start, len(left))
        results, questions = batch.write(left[start : start + writer.at_once], None if limit is None else limit - kept)
        added.add(questions)
        tried.record(results)
        kept += len(questions)
    display.progress("passages", len(left), len(left))
    return Written(len(chunks), tried.count(texts), kept - kept_before)


def _chunks(site: Site, search: Search) -> list[Chunk]:
    """Return the pieces of the passages as they are searched, each text once."""
    retriever = search.retriever
    chunks = chunk_passages(site.passages, retriever.encoder.tokenizer, retriever.chunk_tokens, search.overlap)
    return list({chunk.text: chunk for chunk in reversed(chunks)}.values())[::-1]


class _Batch:
    """Writes and checks some questions at a time, and remembers which texts are taken."""

    def __init__(self, site: Site, writer: QuestionWriter, search: Search) -> None:
        self._writer = writer
        self._search = search
        self._passages = {passage.id: passage.full_text for passage in site.passages}
        self._held_out = {normalise_question(q.question) for q in (*site.validation, *site.test)}
        self._known = {normalise_question(q.question) for q in (*site.train, *site.unanswered)}

    def write(self, chunks: Sequence[Chunk], most: int | None) -> tuple[dict[str, str], list[Question]]:
        """Return what became of each chunk's text, and the questions that are kept, at most so many."""
        results: dict[str, str] = {}
        written = map(clean_question, self._writer.questions([chunk.text for chunk in chunks]))
        asked: list[tuple[Chunk, str]] = []
        for chunk, question in zip(chunks, written, strict=True):
            if why := self._why_not_asked(question, chunk.text):
                results[chunk.text] = why
            else:
                self._known.add(normalise_question(question))
                asked.append((chunk, question))
        finds = self._search.finds([question for _, question in asked], [chunk for chunk, _ in asked])
        results |= {chunk.text: "not found" for (chunk, _), found in zip(asked, finds, strict=True) if not found}
        found = [pair for pair, is_found in zip(asked, finds, strict=True) if is_found]
        answers = self._writer.answers([question for _, question in found], [chunk.text for chunk, _ in found])
        questions: list[Question] = []
        for (chunk, question), answer in zip(found, answers, strict=True):
            if most is not None and len(questions) >= most:
                break  # the rest counts as not tried
            text = shorten_answer(answer, question, self._passages[chunk.passage_id])
            results[chunk.text] = KEPT if text else "no answer"
            if text:
                questions.append(_question(question, text, chunk))
        return results, questions

    def _why_not_asked(self, question: str, passage: str) -> str:
        key = normalise_question(question)
        if not question:
            return "no question"
        if not is_about(question, passage):
            return "not about it"
        return "held out" if key in self._held_out else "known" if key in self._known else ""


def _question(text: str, answer: str, chunk: Chunk) -> Question:
    digest = hashlib.sha256(f"{chunk.passage_id}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return Question(f"generated-{digest}", text, (answer,), (chunk.passage_id,), origin="generated")
