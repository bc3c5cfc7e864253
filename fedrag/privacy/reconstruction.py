"""What the coordinator could read out of a site's update: the tokens of questions, by matching gradients.

A site of the run trains the retriever for one step on a few questions, as it would in a round, and the attacker is
given what would leave it: the plain update, or the sum over several sites. That is the easiest case for him; an update
after many steps on many questions tells less of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fedrag.config.scenario import Config
from fedrag.display import Display, Quiet
from fedrag.models.resident import RoundModels
from fedrag.models.retriever import Retriever
from fedrag.privacy.gradient_matching import Batch, match_gradients
from fedrag.privacy.kept_steps import KeptSteps
from fedrag.training.retriever_examples import RetrieverExample, labelled_examples
from fedrag.training.retriever_training import train_retriever
from fedrag.types import Site, State, Tensors

QUESTIONS = 2
"""Questions of a batch; fewer teach a contrastive loss nothing."""
PASSAGE_TOKENS = 16
"""Tokens of each labelled passage that the step reads: short ones make the search shorter, for him too."""
STEPS = 120
FEWEST_SITES = 3
"""Sites of a secure sum."""


def can_be_attacked(config: Config, state: State) -> bool:
    """Return whether the run trains what this attack looks at: a retriever that learns from labelled passages."""
    return "retriever" in state and config.retriever.uses_contrastive


def reconstruct(
    sites: Sequence[Site],
    config: Config,
    state: State,
    kept: KeptSteps,
    *,
    steps: int = STEPS,
    display: Display = Quiet(),
) -> dict[str, Any]:
    """Attack the first site's update, alone and in the sum over all sites.

    Args:
        sites: The sites that trained; the first with enough labelled questions is attacked.
        config: The scenario.
        state: What they begin at.
        kept: Keeps each search.
        steps: Steps of a search.
        display: Shows progress.

    Returns:
        `tokens` of the questions that were looked for, and how many of them were found in the `plain` update, in the
        `sum` over so many `sites` (where there are at least three), in the update of the `other` site, which is chance,
        and by a `guess`: the tokens that the questions of the other sites have most often. {} if fewer than two sites
        have enough labelled questions.
    """
    settings = one_step(config)
    retriever = RoundModels(settings, state).retriever
    start = state.get("retriever") or retriever.initial_state(seed=0)
    batches = {site.name: examples for site in sites if len(examples := first_examples(retriever, site, settings)) > 1}
    if len(batches) < 2:
        return {}
    updates = [_update(retriever, start, examples, settings) for examples in batches.values()]
    name, attacked = next(iter(batches.items()))
    retriever.set_state(start)
    batch = Batch.of(retriever, [e.question for e in attacked], [e.positive.text for e in attacked if e.positive])
    true = batch.tokens()

    def found(update: Tensors, what: str) -> int:
        search = partial(match_gradients, retriever, update, batch, steps=steps, seed=0)
        tokens = search(on_progress=partial(display.progress, f"reading questions out of {what}"))
        return _hits(true, tokens)

    result = {
        "questions": len(attacked),
        "sites": len(updates),
        "tokens": sum(map(len, true)),
        "plain": kept.of("reconstruction-plain", partial(found, updates[0], "one site's update")),
        "other": kept.of("reconstruction-other", partial(found, updates[1], "the update of another site")),
        "guess": _hits(true, _usual_tokens(retriever, true, [site for site in sites if site.name != name])),
    }
    if len(updates) >= FEWEST_SITES:
        total: Tensors = {key: np.sum([update[key] for update in updates], axis=0) for key in updates[0]}
        result["sum"] = kept.of("reconstruction-sum", partial(found, total, "the sum over sites"))
    return result


def one_step(config: Config) -> Config:
    """Return the scenario of a single step on a few questions."""
    contrastive = config.retriever.contrastive.model_copy(update={"guide": "none"})
    step = {
        "batch_size": QUESTIONS,
        "epochs": 1,
        "warmup": 0.0,
        "schedule": "constant",
        "dropout": False,
        "loss": "contrastive",
        "train_tokens": PASSAGE_TOKENS,
        "contrastive": contrastive,
    }
    models = config.models.model_copy(update={"retriever_dtype": "float32"})
    return config.model_copy(update={"retriever": config.retriever.model_copy(update=step), "models": models})


def first_examples(retriever: Retriever, site: Site, config: Config) -> list[RetrieverExample]:
    """Return a site's first labelled questions, none of which has a right passage of another: such teach nothing."""
    size = config.retriever.train_tokens
    chosen: list[RetrieverExample] = []
    right: set[str] = set()
    for example in labelled_examples(retriever, site.train, site.passages, config.rag.chunk_overlap, size):
        if example.positive and not right & example.right_ids and len(chosen) < QUESTIONS:
            chosen.append(replace(example, hard_negatives=()))
            right |= example.right_ids
    return chosen


def _update(retriever: Retriever, start: Tensors, examples: Sequence[RetrieverExample], config: Config) -> Tensors:
    retriever.set_state(start)
    return train_retriever(retriever, examples, config.retriever, seed=0, received=start).update


def _usual_tokens(retriever: Retriever, true: Sequence[set[int]], others: Sequence[Site]) -> list[set[int]]:
    """Return for each question as many tokens as it has: those that other sites' questions have most often."""
    asked = [question.question for site in others for question in site.train]
    ids = retriever.encoder.tokenizer(asked, add_special_tokens=False)["input_ids"] if asked else []
    usual = [token for token, _ in Counter(token for row in ids for token in set(row)).most_common()]
    return [set(usual[: len(tokens)]) for tokens in true]


def _hits(true: Sequence[set[int]], found: Sequence[set[int]]) -> int:
    return sum(len(tokens & told) for tokens, told in zip(true, found, strict=True))
