"""What a site does in one round: load the state, let each component prepare and train, send the differences."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from fedrag.augmentation.pseudo_labels import pseudo_labelled
from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components, find_component
from fedrag.components.work import NothingToLearn, Prepared, Work, Workbench
from fedrag.federation.lora_factors import cut_to_rank
from fedrag.federation.messages import Reply, Request
from fedrag.federation.update import flatten, norm
from fedrag.models.resident import RoundModels
from fedrag.rag.indexing import build_index
from fedrag.rag.pipeline import rank
from fedrag.retrieval.index import PassageIndex, Ranking
from fedrag.site.noise_budget import budget_of, spend
from fedrag.training.result import TrainingResult
from fedrag.types import Component, State


def train_site(
    bench: Workbench,
    request: Request,
    components: Components = SHIPPED,
    min_questions: int = 1,
    max_epsilon: float = 0.0,
) -> Reply:
    """Train the components that a request names and return the differences.

    All of them start from the state of the round's start: each has prepared before the first is trained.

    Args:
        bench: What the site works with.
        request: What is asked.
        components: What can be trained, by name.
        min_questions: Fewest distinct questions that a component learns from; with fewer, nothing is trained.
        max_epsilon: The most that noised training here may spend, in all runs together; 0: no limit.
    """
    started = time.monotonic()
    budget = budget_of(bench, request, max_epsilon)
    if budget.refusal:
        return Reply(refusal=budget.refusal)
    start = replace(request, state=_own_part(bench, request))
    work = replace(begin_work(bench, start), noise=budget.noise)
    if bench.config.iterates:
        work = _with_pseudo_labels(work)
    # Answer scores come before prompts: they take longest, and what goes wrong in them is known soonest.
    found: dict[Component, Prepared | None] = {}
    lacking = "no-examples"
    for name in reversed(request.components):
        try:
            found[name] = find_component(components, name).steps().prepare(work)
        except NothingToLearn as nothing:
            found[name], lacking = None, nothing.code
    prepared = {name: training for name in request.components if (training := found[name])}
    if not prepared:
        return Reply(refusal=lacking)
    if min(training.distinct_questions for training in prepared.values()) < min_questions:
        return Reply(refusal="policy-few-examples")
    spent = {"privacy.epsilon": spend(bench, request, budget.noise, list(prepared))} if budget.noise else {}
    results = {name: _since(request, start, name, training.train()) for name, training in prepared.items()}
    reply = _reply(results, prepared, request, time.monotonic() - started)
    return replace(reply, metrics=reply.metrics | spent)


def begin_work(bench: Workbench, request: Request) -> Work:
    """Return what components are given: models in the state of the request, an index once one asks for it."""
    return _work_with(bench, request, RoundModels(bench.config, request.state))


def _own_part(bench: Workbench, request: Request) -> State:
    """Return the state from which the site trains: its adapters have no more than its own rank."""
    state, most = dict(request.state), bench.max_rank
    for name in request.components:
        if 0 < most < bench.config.adapter_rank(name):
            state[name] = cut_to_rank(state[name], most)
    return state


def _since(request: Request, start: Request, name: Component, result: TrainingResult) -> TrainingResult:
    """Return a training's result with its difference to what was received, of which the site may have left out a part.

    What it left out is not there afterwards either, so the server forms the product of this site's own rank.
    """
    received, begun = request.state[name], start.state[name]
    if begun is received:
        return result
    update = {key: difference + (begun[key] - received[key]) for key, difference in result.update.items()}
    return replace(result, update=update)


def _with_pseudo_labels(work: Work) -> Work:
    """Return the work on a site that has answered its unanswered questions with the models of the round's start."""
    bench = work.bench
    parts = tuple(map(_with_pseudo_labels, work.parts))
    if parts:
        train = tuple(question for part in parts for question in part.bench.site.train)
        site = replace(bench.site, train=train, parts=tuple(part.bench.site for part in parts))
    else:
        site = pseudo_labelled(bench.site, work.models, work.index, bench.config, bench.on_progress)
    return replace(work, bench=replace(bench, site=site), parts=parts)


def _work_with(bench: Workbench, request: Request, models: RoundModels) -> Work:
    @cache
    def index() -> PassageIndex:
        rag = bench.config.rag
        return build_index(models.retriever, bench.site.passages, rag.chunk_overlap, bench.indexes, rag.search)

    @cache
    def rankings() -> list[Ranking]:
        return rank(models.retriever, index(), bench.site.validation, bench.config.rag.passages)

    parts = tuple(_work_with(replace(bench, site=part), request, models) for part in bench.site.parts)
    return Work(bench, request, models, index, rankings, parts)


def _reply(
    results: Mapping[Component, TrainingResult],
    prepared: Mapping[Component, Prepared],
    request: Request,
    seconds: float,
) -> Reply:
    metrics: dict[str, float] = {"seconds": seconds}
    for component, result in results.items():
        if not result.is_untold:
            metrics[f"{component}.loss"] = result.loss
            metrics[f"{component}.last_loss"] = result.last_loss
            metrics[f"{component}.tokens"] = result.tokens
        metrics[f"{component}.steps"] = result.steps
        metrics[f"{component}.norm"] = norm(result.update)
        metrics |= {f"{component}.{name}": value for name, value in result.temperatures.items()}
    update = {c: flatten(result.update, request.manifest(c)) for c, result in results.items()}
    num_examples = {component: training.num_examples for component, training in prepared.items()}
    return Reply(update, num_examples, metrics, questions=_questions_behind(results, prepared))


def _questions_behind(
    results: Mapping[Component, TrainingResult], prepared: Mapping[Component, Prepared]
) -> dict[Component, int]:
    """Return how many distinct questions each difference comes from: those prepared, less those that taught nothing."""
    taught = {component: result.questions for component, result in results.items()}
    most = {component: training.distinct_questions for component, training in prepared.items()}
    return {c: n if (some := taught[c]) is None else min(n, some) for c, n in most.items()}
