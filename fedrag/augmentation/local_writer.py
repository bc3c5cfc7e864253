"""A generator of the store writes questions about passages, and answers them."""

from __future__ import annotations

from collections.abc import Sequence

from fedrag.augmentation.question_wording import QuestionWording
from fedrag.config.rag_settings import RagConfig
from fedrag.config.scenario import Config
from fedrag.models.resident import RoundModels
from fedrag.rag.pipeline import Retrieved, generate_answers
from fedrag.rag.window import Shown

QUESTION_TOKENS = 48


class LocalWriter:
    """Writes with the untouched generator of a scenario.

    Args:
        models: The models; the generator is loaded at its first use.
        config: The scenario, with the prompts of answers.
        wording: The words that ask for a question.
        seed: Chooses among the ways to ask.

    Attributes:
        key: What its texts depend on beside the passages.
    """

    at_once = 16
    """Passages that it is given at once."""

    def __init__(self, models: RoundModels, config: Config, wording: QuestionWording, seed: int) -> None:
        self._models = models
        self._config = config
        self._wording = wording
        self._seed = seed
        self._answering = config.rag.model_copy(update={"passages": 1, "passages_per_prompt": 0})
        asking = {"instruction": wording.instruction, "labels": wording.labels, "answer_tokens": QUESTION_TOKENS}
        self._asking = self._answering.model_copy(update=asking)
        self.key = f"{config.models.generator}|{wording}|{seed}"

    def questions(self, passages: Sequence[str]) -> list[str]:
        """Return what the model writes when asked for a question about each passage."""
        requests = [self._wording.request(self._seed, passage) for passage in passages]
        return self._complete(requests, passages, self._asking)

    def answers(self, questions: Sequence[str], passages: Sequence[str]) -> list[str]:
        """Return the model's answer to each question, from its passage."""
        return self._complete(questions, passages, self._answering)

    def _complete(self, requests: Sequence[str], passages: Sequence[str], rag: RagConfig) -> list[str]:
        asked = [Retrieved(request, (Shown(text),), (1.0,)) for request, text in zip(requests, passages, strict=True)]
        tokens = self._config.evaluation.batch_tokens
        return [answer.text for answer in generate_answers(self._models.generator, asked, rag, tokens, 1.0)]
