"""How questions wait and are gathered; the answerer is a plain one that says when it was asked what."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from fedrag.evaluation.answerer import RagAnswer
from fedrag.serving import model_thread
from fedrag.serving.model_thread import ModelThread, Served
from fedrag.serving.refusals import Refused


class Gated:
    """Answers a question with itself in capitals, a batch each time the gate is opened."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Semaphore(0)

    def answer(self, questions: Sequence[str], on_text: Callable[[str, str], None]) -> list[RagAnswer]:
        self.batches.append(list(questions))
        self.gate.acquire()
        if "fail" in questions:
            raise ValueError("no")
        for question in questions:
            on_text(question, question[:1].upper())
        return [RagAnswer(question.upper(), ()) for question in questions]


def in_a_loop(act: Callable[[ModelThread, Gated], Awaitable[Any]], most_together: int = 32) -> Gated:
    """Run an async function with a model thread, and end that."""
    answerer: Any = Gated()
    models = ModelThread(lambda: Served("plain", answerer), most_together)

    async def run() -> None:
        await asyncio.wait_for(act(models, answerer), 20)

    try:
        asyncio.run(run())
    finally:
        models.end()
    return answerer


async def answers(*asked: model_thread.Asked) -> list[str]:
    return [(await one.reply)[1].answer for one in asked]


async def begun(answerer: Gated, batches: int) -> None:
    while len(answerer.batches) < batches:
        await asyncio.sleep(0.01)


def test_what_arrives_while_a_batch_computes_is_the_next_batch():
    async def act(models: ModelThread, answerer: Gated) -> None:
        first = models.ask("a")
        await begun(answerer, 1)
        others = [models.ask(question) for question in "bcde"]
        answerer.gate.release(3)
        assert await answers(first, *others) == list("ABCDE")

    assert in_a_loop(act, most_together=3).batches == [["a"], ["b", "c", "d"], ["e"]]


def test_the_answer_so_far_is_told_before_the_answer_and_ends_with_none():
    async def act(models: ModelThread, answerer: Gated) -> None:
        answerer.gate.release()
        asked = models.ask("abc")
        assert [await asked.texts.get(), await asked.texts.get()] == ["A", None]
        assert await answers(asked) == ["ABC"]

    in_a_loop(act)


def test_an_error_reaches_all_of_its_batch_and_no_other():
    async def act(models: ModelThread, answerer: Gated) -> None:
        first = models.ask("a")
        await begun(answerer, 1)
        both = [models.ask("b"), models.ask("fail")]
        answerer.gate.release(3)
        assert await answers(first) == ["A"]
        for asked in both:
            with pytest.raises(ValueError, match="no"):
                await asked.reply
            assert await asked.texts.get() is None
        assert await answers(models.ask("c")) == ["C"]

    in_a_loop(act)


def test_who_has_gone_away_is_not_answered():
    async def act(models: ModelThread, answerer: Gated) -> None:
        first = models.ask("a")
        await begun(answerer, 1)
        gone, other = models.ask("b"), models.ask("c")
        gone.reply.cancel()
        answerer.gate.release(2)
        assert await answers(first, other) == ["A", "C"]

    assert in_a_loop(act).batches == [["a"], ["c"]]


def test_when_too_many_wait_the_next_one_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model_thread, "MOST_WAITING", 2)

    async def act(models: ModelThread, answerer: Gated) -> None:
        first = models.ask("a")
        await begun(answerer, 1)
        others = [models.ask("b"), models.ask("c")]
        with pytest.raises(Refused, match="2 questions wait already; ask again later") as caught:
            models.ask("d")
        assert caught.value.response().headers["retry-after"] == "5"
        answerer.gate.release(2)
        assert await answers(first, *others) == ["A", "B", "C"]

    in_a_loop(act)
