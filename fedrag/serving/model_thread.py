"""The one thread in which a service's models compute; questions that wait are answered together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

from fedrag.evaluation.answerer import Answerer, Found, RagAnswer
from fedrag.serving.refusals import Refused
from fedrag.types import Array

MOST_TOGETHER = 32
"""Most questions of a batch: beyond that, a CPU gains little and the first of them wait for the last."""
MOST_WAITING = 256
GATHER_S = 0.02
"""Time after a batch in which those who were just answered can ask on: else the few who waited are the next batch."""

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


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that waits for its answer.

    Attributes:
        question: The question.
        reply: Will be the answer, and who gave it.
        texts: Take the answer so far, again and again; None at the end.
    """

    question: str
    reply: asyncio.Future[tuple[Served, RagAnswer]]
    texts: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)


class ModelThread:
    """Answers, searches and embeds, one batch after the other, for any number of requests at once.

    What arrives while a batch computes waits, and is the next batch. No answer depends on who else asks.

    Args:
        current: Returns the models that answer now; called at once, and in the thread before each batch.
        most_together: Most questions of a batch.
    """

    def __init__(self, current: Callable[[], Served], most_together: int = MOST_TOGETHER) -> None:
        self._current = current
        self._most_together = most_together
        self.served = current()
        """The models that answered last, or will answer first."""
        self._thread = ThreadPoolExecutor(1, "models")
        self._waiting: list[Asked] = []
        self._worker: asyncio.Task[None] | None = None

    def ask(self, question: str) -> Asked:
        """Put a question, which `checked_question` has returned, among those that wait.

        Raises:
            Refused: Too many do already.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise Refused(503, f"{MOST_WAITING} questions wait already; ask again later", code="busy")
        asked = Asked(question, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._answer_all())
        return asked

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
            batch, self._waiting = self._waiting[: self._most_together], self._waiting[self._most_together :]
            batch = [asked for asked in batch if not asked.reply.done()]  # others have gone away
            try:
                served, replies = await self._run(partial(self._answer, batch, asyncio.get_running_loop()))
            except Exception as error:
                for asked in batch:
                    if not asked.reply.done():
                        asked.reply.set_exception(error)
            else:
                for asked, reply in zip(batch, replies, strict=True):
                    if not asked.reply.done():
                        asked.reply.set_result((served, reply))
            finally:
                for asked in batch:
                    asked.texts.put_nowait(None)
            await asyncio.sleep(GATHER_S)

    def _answer(self, batch: Sequence[Asked], loop: asyncio.AbstractEventLoop) -> tuple[Served, list[RagAnswer]]:
        served = self._now()

        def tell(question: str, text: str) -> None:
            for asked in batch:
                if asked.question == question:
                    loop.call_soon_threadsafe(asked.texts.put_nowait, text)

        return served, served.answerer.answer([asked.question for asked in batch], tell)

    def _now(self) -> Served:
        self.served = self._current()
        return self.served

    async def _run(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)
