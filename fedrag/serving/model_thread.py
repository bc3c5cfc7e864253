"""The one thread in which a service's models compute; questions that wait are answered together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

from fedrag.evaluation.answerer import Answerer, Found, RagAnswer
from fedrag.serving.refusals import Refused
from fedrag.types import Array

MOST_TOGETHER = 32
"""Most questions of a batch: beyond that, a CPU gains little and the first of them wait for the last."""
MOST_WAITING = 256

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Served:
    """Models that answer.

    Attributes:
        name: Name of the run that trained them, or "untouched".
        answerer: Models and index.
    """

    name: str
    answerer: Answerer


class ModelThread:
    """Answers, searches and embeds, one batch after the other, for any number of requests at once.

    What arrives while a batch computes waits, and is the next batch. No answer depends on who else asks.

    Args:
        current: Returns the models that answer now; called at once, and in the thread before each batch.
    """

    def __init__(self, current: Callable[[], Served]) -> None:
        self._current = current
        self.served = current()
        """The models that answered last, or will answer first."""
        self._thread = ThreadPoolExecutor(1, "models")
        self._waiting: list[tuple[str, asyncio.Future[tuple[Served, RagAnswer]]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def answer(self, question: str) -> tuple[Served, RagAnswer]:
        """Answer a question, which `checked_question` has returned.

        Raises:
            Refused: Too many questions wait.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise Refused(503, f"{MOST_WAITING} questions wait already; ask again later", code="busy")
        future: asyncio.Future[tuple[Served, RagAnswer]] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._answer_all())
        return await future

    async def search(self, question: str, passages: int) -> tuple[Served, tuple[Found, ...]]:
        """Return the best passages for a question.

        Raises:
            ConfigError: These models search no passages.
        """

        def search() -> tuple[Served, tuple[Found, ...]]:
            served = self._now()
            return served, served.answerer.search(question, passages)

        return await self._run(search)

    async def embed(self, texts: Sequence[str], side: Literal["query", "passage"]) -> tuple[Served, Array, int]:
        """Return the vectors (texts, dim) of questions or passages, and their tokens."""

        def embed() -> tuple[Served, Array, int]:
            served = self._now()
            return served, *served.answerer.embed(texts, side)

        return await self._run(embed)

    def end(self) -> None:
        """Drop what has not begun, and wait for what computes."""
        self._thread.shutdown(cancel_futures=True)

    async def _answer_all(self) -> None:
        """Answer what waits, a batch at a time, until nothing does."""
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
            batch = [(question, future) for question, future in batch if not future.done()]  # some may have gone away
            try:
                served, replies = await self._run(partial(self._answer, [question for question, _ in batch]))
            except BaseException as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                if not isinstance(error, Exception):
                    raise
                continue
            for (_, future), reply in zip(batch, replies, strict=True):
                if not future.done():
                    future.set_result((served, reply))

    def _answer(self, questions: Sequence[str]) -> tuple[Served, list[RagAnswer]]:
        served = self._now()
        return served, served.answerer.answer(questions)

    def _now(self) -> Served:
        self.served = self._current()
        return self.served

    async def _run(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)
