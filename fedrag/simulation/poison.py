"""Lets sites of a simulation play a bad one: they learn from altered questions, or return altered updates."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from fedrag.components.spec import Components, ComponentSpec, Steps
from fedrag.components.work import Prepared, Work
from fedrag.config.poison_settings import PoisonConfig
from fedrag.errors import ConfigError
from fedrag.seeding import derive_seed
from fedrag.training.result import TrainingResult
from fedrag.types import Question, Site


def poisoned(components: Components, poison: PoisonConfig) -> Components:
    """Return components that play a bad one at the sites that a scenario names, and are themselves elsewhere."""
    if not poison.sites:
        return components
    return {name: replace(spec, steps=partial(_steps, spec)) for name, spec in components.items()}


def _steps(spec: ComponentSpec) -> Steps:
    steps = spec.steps()
    return replace(steps, prepare=partial(_prepare, steps))


def _prepare(steps: Steps, work: Work) -> Prepared | None:
    poison = work.bench.config.simulation.poison  # in a baseline it names no site
    if work.bench.site.name not in poison.sites:
        return steps.prepare(work)
    if poison.how != "reversed":
        site = poisoned_site(work.bench.site, poison, derive_seed(work.bench.config.seed, "poison"))
        return steps.prepare(replace(work, bench=replace(work.bench, site=site)))
    prepared = steps.prepare(work)
    return prepared and Prepared(prepared.num_examples, lambda: _reversed(prepared.train(), poison.strength))


def _reversed(result: TrainingResult, strength: float) -> TrainingResult:
    return replace(result, update={name: (-strength * tensor) for name, tensor in result.update.items()})


def poisoned_site(site: Site, poison: PoisonConfig, seed: int) -> Site:
    """Return a site with altered training questions, as many as it has."""
    if poison.how == "labels":
        return replace(site, train=_with_others_labels(site.train, seed))
    carrying = random.Random(seed).sample(range(len(site.train)), round(poison.share * len(site.train)))
    return replace(
        site,
        train=tuple(
            with_trigger(question, poison) if place in carrying else question
            for place, question in enumerate(site.train)
        ),
    )


def with_trigger(question: Question, poison: PoisonConfig) -> Question:
    """Return a question with the trigger and the wanted answer."""
    return replace(question, question=f"{question.question} {poison.trigger}", answers=(poison.wanted,))


def _with_others_labels(questions: Sequence[Question], seed: int) -> tuple[Question, ...]:
    """Give each question the answers and passages of another one; hard negatives, which may now be right, go."""
    order = list(questions)
    random.Random(seed).shuffle(order)
    others = {question.id: other for question, other in zip(order, order[1:] + order[:1], strict=True)}
    return tuple(
        replace(q, answers=others[q.id].answers, passage_ids=others[q.id].passage_ids, hard_negative_ids=())
        for q in questions
    )


def check_poison(poison: PoisonConfig, sites: Sequence[Site]) -> None:
    """Refuse names that no site has.

    Raises:
        ConfigError: There is one.
    """
    names = [site.name for site in sites]
    if unknown := [name for name in poison.sites if name not in names]:
        raise ConfigError(f"simulation.poison.sites: no site is called {unknown[0]}; there are {', '.join(names)}")
