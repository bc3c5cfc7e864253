"""Forgetting: a generator's loss on general text before and after training.

    loss = -(1/T) sum_t log p(y_t | x, y_<t)

x is the first half of a text's tokens, y the second, T the tokens of all second halves: nats per token, less is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedrag.config.scenario import Config
from fedrag.diagnosis.general_texts import GENERAL_TEXTS
from fedrag.models.generator import Generator
from fedrag.models.resident import RoundModels
from fedrag.rag.answer_scores import score_answers
from fedrag.types import Example, State


def measure_forgetting(config: Config, state: State) -> dict[str, Any]:
    """Return the loss on general text of the untouched generator and of one in a state.

    Returns:
        `before` and `after`, each with a loss by language and `all`, in nats per token; nothing where the state has no
        generator.
    """
    if "generator" not in state:
        return {}
    return {
        "before": general_losses(RoundModels(config, {}).generator, config.evaluation.batch_tokens),
        "after": general_losses(RoundModels(config, state).generator, config.evaluation.batch_tokens),
    }


def general_losses(generator: Generator, batch_tokens: int = 0) -> dict[str, float]:
    """Return a generator's loss per token on the general texts of each language, and on all of them."""
    examples = {language: [_example(generator, text) for text in texts] for language, texts in GENERAL_TEXTS.items()}
    every = [example for found in examples.values() for example in found]
    scores = iter(score_answers(generator, every, batch_tokens).tolist())
    weighted = {
        language: [(next(scores) * len(example.answer), len(example.answer)) for example in found]
        for language, found in examples.items()
    }
    losses = {language: _loss(pairs) for language, pairs in weighted.items()}
    return losses | {"all": _loss([pair for pairs in weighted.values() for pair in pairs])}


def _example(generator: Generator, text: str) -> Example:
    ids = list(generator.tokenizer(text, add_special_tokens=False)["input_ids"])
    half = max(1, len(ids) // 2)
    # An adapter that acts from the question on acts from the second token on: there is no question here.
    return Example(ids[:half], ids[half:], () if generator.seq2seq else (1,))


def _loss(pairs: Sequence[tuple[float, int]]) -> float:
    return -sum(total for total, _ in pairs) / sum(count for _, count in pairs)
