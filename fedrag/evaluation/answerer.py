"""Answers questions from one site's passages with one generator and one retriever, as `ask` and a service do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fedrag.config.rag_settings import QUERY_PLACE
from fedrag.config.scenario import Config
from fedrag.errors import ConfigError
from fedrag.models.resident import RoundModels
from fedrag.rag.alone import answer_as_if_alone
from fedrag.rag.indexing import build_index
from fedrag.rag.message import parse_message
from fedrag.rag.pipeline import (
    Answered,
    Retrieved,
    answer_temperature,
    prompt_builder,
    retrieve,
)
from fedrag.rag.window import Shown, shown_hits
from fedrag.rag.wording import wording_of
from fedrag.retrieval.index import PassageIndex
from fedrag.types import Array, Hit, Passage, Site, State


@dataclass(frozen=True, slots=True)
class Found:
    """A passage that a retriever found.

    Attributes:
        passage: The passage.
        score: By which passages are ranked: similarity to the question, BM25, or the sum of reciprocal ranks.
        is_given: Whether it was given to the generator.
        is_labelled: Whether the site's files label it as holding the answer.
    """

    passage: Passage
    score: float
    is_given: bool
    is_labelled: bool = False


@dataclass(frozen=True, slots=True)
class RagAnswer:
    """The answer of one generator and retriever to a question.

    Attributes:
        answer: The answer.
        found: The passages found, best first.
        unread_tokens: The last tokens of a long question, for which the prompt had no room.
        is_cut: Whether the answer was stopped before it ended.
        prompt_tokens: Tokens of its prompts.
        answer_tokens: Tokens of the answer, with the one that ends it.
    """

    answer: str
    found: tuple[Found, ...]
    unread_tokens: int = 0
    is_cut: bool = False
    prompt_tokens: int = 0
    answer_tokens: int = 0


class Answerer:
    """Models and index of one site, loaded once.

    Other answerers may share the loaded models: each sets its own state before it uses them, so two of them must not
    run at the same time.

    Args:
        config: The scenario.
        state: Tensors by component; a missing component is untouched.
        site: The site.
        passages: Passages to find per question; None: as many as the scenario gives the generator, which may be none.
            The generator gets the best of them, at most as many as in the scenario.
        indexes: The folder of indexes; None: none are kept.

    Raises:
        ModelError: A model is not fetched.
    """

    def __init__(
        self, config: Config, state: State, site: Site, passages: int | None = None, indexes: Path | None = None
    ) -> None:
        self.site = site
        self._config = config
        self._state = state
        self._n_found = config.rag.passages if passages is None else passages
        self._passages = {passage.id: passage for passage in site.passages}
        self._index: PassageIndex | None = None
        if self._n_found:
            retriever = RoundModels(config, state).retriever
            rag = config.rag
            self._index = build_index(retriever, site.passages, rag.chunk_overlap, indexes, rag.search)

    def answer(self, questions: Sequence[str], on_text: Callable[[str, str], None] | None = None) -> list[RagAnswer]:
        """Answer questions; each gets the answer that it gets alone, however many there are.

        Args:
            questions: As `checked_question` returns them.
            on_text: Called now and then with a question and its answer so far.
        """
        config, models = self._config, self._models()
        distinct = list(dict.fromkeys(questions))
        hits = [self._hits(models, question, self._n_found) for question in distinct]
        asked = [
            Retrieved.of(question, found[: config.rag.passages], self._passages, self._index)
            for question, found in zip(distinct, hits, strict=True)
        ]
        retriever = models.retriever if self._index is not None else None
        temperature = answer_temperature(retriever, config.rag, config.retriever.lsr.tau_r)
        batch_tokens = config.evaluation.batch_tokens
        tell = None if on_text is None else lambda row, text: on_text(distinct[row], text)
        answered = answer_as_if_alone(models.generator, asked, config.rag, batch_tokens, temperature, tell)
        by_question = {
            one.question: self._answer(found, reply) for one, found, reply in zip(asked, hits, answered, strict=True)
        }
        return [by_question[question] for question in questions]

    def search(self, question: str, passages: int) -> tuple[Found, ...]:
        """Return the best passages for a question.

        Raises:
            ConfigError: The scenario searches no passages.
        """
        if self._index is None:
            raise ConfigError("there is no index: this scenario gives the generator no passages (rag.passages = 0)")
        return self._found(self._hits(self._models(), question, passages))

    def embed(self, texts: Sequence[str], side: Literal["query", "passage"]) -> tuple[Array, int]:
        """Return the vectors (texts, dim) of questions or passages by which a search compares them, and their tokens.

        Each text is encoded alone, so that its vector does not depend on the others. Tokens that the encoder does not
        read count too.
        """
        retriever = self._models().retriever
        encode = retriever.encode_queries if side == "query" else retriever.encode_passages
        tokens = sum(len(ids) for ids in retriever.encoder.tokenizer(list(texts), verbose=False)["input_ids"])
        return np.concatenate([encode([text]) for text in texts]), tokens

    @property
    def config(self) -> Config:
        """The scenario."""
        return self._config

    def complete(self, message: str) -> str:
        """Return the generator's answer to a user's message that another program has written.

        A message of the form of the scenario's prompts becomes the prompt that the generator learnt; where a passage of
        the site does not fit, the window around what was found in it is shown. Of another form, it is the user's
        message as it stands, or the whole prompt of a model without a chat template.

        Raises:
            ConfigError: The message is empty, or of another form and longer than a prompt may be.
        """
        generator, rag = self._models().generator, self._config.rag
        wording = wording_of(rag)
        parsed = parse_message(wording, message)
        if parsed is None:
            plain = {"template": QUERY_PLACE, "passages": 0, "passages_per_prompt": 0}
            rag = rag.model_copy(update={**plain, "instruction": wording.instruction})
        question, passages = parsed or (message, [])
        question = checked_question(question)
        builder = prompt_builder(generator, rag)
        if parsed is None and builder.fit(question, passages).cuts_question:
            raise ConfigError(f"the message is longer than the {rag.prompt_tokens} tokens of rag.prompt_tokens")
        asked = Retrieved(question, self._shown(question, passages), ())
        rag = rag.model_copy(update={"passages_per_prompt": 0})
        [answered] = answer_as_if_alone(generator, [asked], rag, self._config.evaluation.batch_tokens, 1.0)
        return answered.text

    def _shown(self, question: str, texts: Sequence[str]) -> tuple[Shown, ...]:
        """Return passages that stand in a message, those of the site with the chunk that the question finds."""
        hits = self._hits(self._models(), question, len(self._passages)) if texts else []
        own = shown_hits(hits, self._passages, self._index) if self._index is not None else []
        found = {one.text: one for one in own}
        return tuple(found.get(text, Shown(text)) for text in texts)

    def _models(self) -> RoundModels:
        return RoundModels(self._config, self._state)  # sets the state, since others may share the loaded models

    def _hits(self, models: RoundModels, question: str, passages: int) -> list[Hit]:
        """Return the passages found for a question, encoded alone: a batch may turn the order of near equals."""
        return retrieve(models.retriever, self._index, [question], passages)[0] if self._index is not None else []

    def _found(self, hits: Sequence[Hit]) -> tuple[Found, ...]:
        given = self._config.rag.passages
        return tuple(Found(self._passages[hit.passage_id], hit.score, rank < given) for rank, hit in enumerate(hits))

    def _answer(self, hits: Sequence[Hit], answered: Answered) -> RagAnswer:
        return RagAnswer(
            answered.text,
            self._found(hits),
            answered.unread_tokens,
            answered.is_cut,
            answered.prompt_tokens,
            answered.answer_tokens,
        )


def checked_question(question: str) -> str:
    """Strip a question.

    Raises:
        ConfigError: It is blank, or no tokenizer can read it.
    """
    if not question.strip():
        raise ConfigError("the question is empty; expected some words")
    try:
        question.encode()
    except UnicodeEncodeError:
        raise ConfigError("the question is not UTF-8 text") from None
    return question.strip()
