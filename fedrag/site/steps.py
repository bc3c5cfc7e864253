"""What a site does in one round: load the state, retrieve, score, train, subtract."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from fedrag.config.scenario import Config
from fedrag.config.schedule import rounds_training
from fedrag.federation.messages import Reply, Request
from fedrag.federation.update import flatten, manifest_of, norm
from fedrag.models.resident import RoundModels, free_share
from fedrag.rag.answer_scores import ScoreCache, score_answers
from fedrag.rag.pipeline import build_index, retrieve
from fedrag.retrieval.index import PassageIndex
from fedrag.seeding import derive_seed
from fedrag.training.losses import Losses
from fedrag.training.optimizer import Progress
from fedrag.training.ralt import answer_examples, train_generator
from fedrag.training.result import TrainingResult
from fedrag.training.retriever_examples import (
    RetrieverExample,
    add_hard_negatives,
    choose_candidates,
    draw_questions,
    labelled_examples,
    lsr_pairs,
    merge_examples,
    scored_examples,
)
from fedrag.training.retriever_training import train_retriever
from fedrag.types import Component, Site

OnProgress = Callable[[str, int, int], None]
"""Called with (what, done, in all) while a site works; stays at the site."""

GetIndex = Callable[[], PassageIndex]
"""Gives the index of the site's passages, encoded when it is first asked for: not every round retrieves."""


@dataclass(frozen=True, slots=True)
class Workbench:
    """What one site's round works with.

    Attributes:
        site: The site's data.
        cache: Folder of the models it is handed.
        scores: Folder of its answer scores.
        config: The scenario.
        losses: The loss functions.
        on_progress: Told how far the work is.
        run: Name of the run, or "" where it has none.
    """

    site: Site
    cache: Path
    scores: Path
    config: Config
    losses: Losses = field(default_factory=Losses)
    on_progress: OnProgress = lambda what, done, total: None
    run: str = ""


def train_site(bench: Workbench, request: Request) -> Reply:
    """Train the components that a request names and return the differences.

    All of them start from the state of the round's start: retrieval and answer scores come first.
    """
    started = time.monotonic()
    models = RoundModels(bench.config, request.state)

    @cache
    def index() -> PassageIndex:
        return build_index(models.retriever, bench.site.passages, bench.config.rag.chunk_overlap)

    results: dict[Component, tuple[TrainingResult, int]] = {}
    retriever_examples: list[RetrieverExample] = []
    if "retriever" in request.components:
        retriever_examples = prepare_retriever_examples(bench, models, index)
    if "generator" in request.components and bench.site.train:
        results["generator"] = (_train_generator(bench, models, index, request), len(bench.site.train))
    if retriever_examples:
        result = _train_retriever(bench, models, retriever_examples, request)
        results["retriever"] = (result, min(len(retriever_examples), len(bench.site.train)))
    if not results:
        return Reply(refusal="no-examples")
    return _reply(results, request, time.monotonic() - started)


def prepare_retriever_examples(bench: Workbench, models: RoundModels, index: GetIndex) -> list[RetrieverExample]:
    """Collect what the retriever learns from in this round."""
    settings = bench.config.retriever
    labelled: list[RetrieverExample] = []
    scored: list[RetrieverExample] = []
    if settings.uses_contrastive:
        labelled = labelled_examples(models.retriever, bench.site.train, bench.site.passages, settings.train_tokens)
        if settings.contrastive.hard_negatives and labelled:
            texts = list(dict.fromkeys(example.question for example in labelled))
            hits = dict(zip(texts, retrieve(models.retriever, index(), texts, len(index())), strict=True))
            labelled = add_hard_negatives(labelled, hits, index(), settings.contrastive)
    if settings.uses_lsr:
        scored = _score_candidates(bench, models, index)
    return merge_examples(labelled, scored)


def _score_candidates(bench: Workbench, models: RoundModels, index: GetIndex) -> list[RetrieverExample]:
    """Let the generator score the candidates of the site's questions, from the cache where it can."""
    lsr = bench.config.retriever.lsr
    drawn = draw_questions(bench.site.train, lsr.max_questions, derive_seed(bench.config.seed, bench.site.name, "lsr"))
    untouched = lsr.candidates_from == "untouched"
    with models.retriever.untouched() if untouched else nullcontext():
        base = (
            build_index(models.retriever, bench.site.passages, bench.config.rag.chunk_overlap) if untouched else index()
        )
        found = retrieve(models.retriever, base, [question.question for question in drawn], len(base))
    chosen = [choose_candidates(h, q, lsr) for h, q in zip(found, drawn, strict=True)]
    generator = models.generator
    passages = {passage.id: passage for passage in bench.site.passages}
    pairs = lsr_pairs(generator, drawn, chosen, passages, bench.config.rag)
    with generator.untouched() if lsr.scorer == "untouched" else nullcontext():
        cache = ScoreCache(bench.scores, models.generator_key(lsr.scorer == "untouched"))
        scores = score_answers(
            generator,
            pairs,
            lsr.batch_tokens,
            cache,
            lambda done, total: bench.on_progress("score", done, total),
        )
    cache.prune()
    return scored_examples(drawn, chosen, scores.tolist(), base)


def _train_generator(bench: Workbench, models: RoundModels, index: GetIndex, request: Request) -> TrainingResult:
    config, site = bench.config, bench.site
    seed = derive_seed(config.seed, request.round_number, site.name, "generator")
    hits = retrieve(models.retriever, index(), [q.question for q in site.train], config.rag.passages)
    examples = answer_examples(
        models.generator,
        site.train,
        hits,
        {passage.id: passage for passage in site.passages},
        config.rag,
        config.generator.raft_drop,
        derive_seed(seed, "raft"),
    )
    return train_generator(
        models.generator,
        examples,
        config.generator,
        seed=seed,
        progress=_progress(config, request, "generator"),
        received=request.state["generator"],
        proximal_mu=config.federation.proximal_mu,
        loss=bench.losses.answer,
        on_step=lambda done, total, _: bench.on_progress("generator", done, total),
        free_bytes=free_share(config.simulation, models.generator.model.device.type),
    )


def _train_retriever(
    bench: Workbench, models: RoundModels, examples: Sequence[RetrieverExample], request: Request
) -> TrainingResult:
    config = bench.config
    return train_retriever(
        models.retriever,
        examples,
        config.retriever,
        seed=derive_seed(config.seed, request.round_number, bench.site.name, "retriever"),
        progress=_progress(config, request, "retriever"),
        received=request.state["retriever"],
        proximal_mu=config.federation.proximal_mu,
        losses=bench.losses,
        on_step=lambda done, total, _: bench.on_progress("retriever", done, total),
    )


def _progress(config: Config, request: Request, component: Component) -> Progress:
    return Progress(request.past_rounds.get(component, 0), rounds_training(config.federation, component))


def _reply(results: dict[Component, tuple[TrainingResult, int]], request: Request, seconds: float) -> Reply:
    metrics: dict[str, float] = {"seconds": seconds}
    for component, (result, _) in results.items():
        metrics[f"{component}.loss"] = result.loss
        metrics[f"{component}.last_loss"] = result.last_loss
        metrics[f"{component}.steps"] = result.steps
        metrics[f"{component}.tokens"] = result.tokens
        metrics[f"{component}.norm"] = norm(result.update)
    return Reply(
        update={c: flatten(r.update, manifest_of(request.state[c])) for c, (r, _) in results.items()},
        num_examples={c: count for c, (_, count) in results.items()},
        metrics=metrics,
    )
