"""A RAG system in a Python program: a generator, a retriever and passages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from fedrag.api.own_models import generator_name, retriever_name
from fedrag.api.sites import as_passages
from fedrag.config.inputs import ModelsConfig
from fedrag.config.scenario import Config
from fedrag.errors import ConfigError
from fedrag.evaluation.answerer import Answerer, Found, RagAnswer, checked_question
from fedrag.rag.indexing import shared_indexes
from fedrag.runs.facts import require_same_models
from fedrag.runs.run_folder import RunFolder
from fedrag.types import Passage, Site, State

_MODELS = ModelsConfig()


class RagSystem:
    """Retrieves passages and answers questions from them.

    Args:
        generator: The name of a fetched language model, a `transformers` pipeline, or a model and its tokenizer.
        retriever: The name of a fetched encoder, or a `SentenceTransformer`.
        passages: What is searched: `fedrag.Passage` or plain texts.
        settings: Sections of a scenario that differ from the defaults, such as `{"rag": {"passages": 3}}`.
        state: What was trained, by component; None: the models are as they were given.

    Raises:
        ModelError: A model is not fetched, or cannot be used.
        ConfigError: A passage is none, or a setting is unknown.

    A model that is in memory is copied into the folder of fetched models, where training, other processes and a resumed
    run find it.
    """

    def __init__(
        self,
        *,
        generator: Any = _MODELS.generator,
        retriever: Any = _MODELS.retriever,
        passages: Iterable[Passage | str] = (),
        settings: Mapping[str, Any] | None = None,
        state: State | None = None,
    ) -> None:
        models = {"generator": generator_name(generator), "retriever": retriever_name(retriever)}
        chosen = {name: dict(section) for name, section in (settings or {}).items()}
        chosen["models"] = {**chosen.get("models", {}), **models}
        self.config = Config.from_dict({"name": "system", "data": {"sites": "."}, **chosen}, "settings")
        self.passages = as_passages(passages)
        self.state: State = state or {}

    @classmethod
    def of_run(cls, run: RunFolder | Path | str, passages: Iterable[Passage | str]) -> RagSystem:
        """Return the trained models of a finished run, with passages to search.

        Raises:
            RunError: The run is not finished, or a base model is no longer the one it was trained with.
        """
        if not isinstance(run, RunFolder):
            run = RunFolder.open(Path(run))
        require_same_models(run)
        return cls.of_parts(run.config, as_passages(passages), run.load_result())

    @classmethod
    def of_parts(cls, config: Config, passages: tuple[Passage, ...], state: State) -> RagSystem:
        """Return a system of models that are fetched, as a whole scenario says."""
        system = cls.__new__(cls)
        system.config, system.passages, system.state = config, passages, state
        return system

    def retrieve(self, question: str, passages: int | None = None) -> tuple[Found, ...]:
        """Return the passages that are most similar to a question, best first.

        Args:
            question: The question.
            passages: How many; None: as many as the generator is given.

        Raises:
            ConfigError: The question is blank, or there are no passages.
        """
        wanted = self.config.rag.passages if passages is None else passages
        if wanted < 1:
            raise ConfigError(f"passages = {wanted}: expected at least 1")
        return self._answerer.search(checked_question(question), wanted)

    def answer(self, question: str) -> RagAnswer:
        """Answer a question.

        Raises:
            ConfigError: The question is blank, or there are no passages.
        """
        return self.answer_all([question])[0]

    def answer_all(self, questions: Sequence[str]) -> list[RagAnswer]:
        """Answer several questions in one batch; each gets the answer that it gets alone.

        Raises:
            ConfigError: A question is blank, or there are no passages.
        """
        return self._answerer.answer([checked_question(question) for question in questions])

    @cached_property
    def _answerer(self) -> Answerer:
        if not self.passages and self.config.rag.passages:
            raise ConfigError("passages: there are none to search; give RagSystem(passages=...) some")
        return Answerer(self.config, self.state, Site("system", self.passages), indexes=shared_indexes())
