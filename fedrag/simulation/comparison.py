"""Measures the federation and what the scenario sets beside it, each arm once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fedrag.data.questions import count_lines, distinct_questions, trained_elsewhere
from fedrag.data.site_folder import load_site
from fedrag.diagnosis.forgetting import measure_forgetting
from fedrag.evaluation.evaluate import measure_sites
from fedrag.evaluation.measure import MeasuredSplit
from fedrag.evaluation.records import (
    Measured,
    QuestionKey,
    measured_lines,
    read_measured,
    summarise,
    summarise_by_site,
    write_seen,
)
from fedrag.files import read_json, write_json, write_text
from fedrag.rag.indexing import shared_indexes
from fedrag.runs.home_results import home_scores
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.home_arm import Homes
from fedrag.simulation.preflight import held_out_folders
from fedrag.simulation.rates import try_rates
from fedrag.simulation.train_arms import Arms
from fedrag.types import Site, State


def measure_arms(arms: Arms, state: State) -> dict[str, Any]:
    """Train the baselines, measure every arm and return the results.

    Args:
        arms: The arms of the run.
        state: What the federation trained.
    """
    run, evaluation = arms.run, arms.run.config.evaluation
    if evaluation.split == "none":
        return {}
    split = evaluation.split
    on_held_out = evaluation.sites == "held-out"
    measured_sites = [load_site(folder) for folder in held_out_folders(run.config)] if on_held_out else arms.sites
    seen = _record_seen(run, measured_sites, split, arms.sites)

    def measure(on: Sequence[Site], of: State) -> list[Measured]:
        return measure_sites(on, split, run.config, of, True, arms.parts.display, shared_indexes())

    def local() -> list[Measured]:
        if evaluation.rates:
            try_rates(arms, "local")
        states = arms.train_local(arms.config("local"), arms.baselines)
        return [
            item
            for site in arms.sites
            for item in measure(measured_sites if on_held_out else [site], states[site.name])
        ]

    def pooled() -> list[Measured]:
        if evaluation.rates:
            try_rates(arms, "pooled")
        return measure(measured_sites, arms.train_pooled(arms.config("pooled"), arms.baselines))

    measurements: dict[str, tuple[bool, Callable[[], list[Measured]]]] = {
        "federated": (True, lambda: measure(measured_sites, state)),
        "untouched": (evaluation.untouched, lambda: measure(measured_sites, {})),
        "local": ("local" in evaluation.baselines, local),
        "pooled": ("pooled" in evaluation.baselines, pooled),
        "personalised": (run.config.federation.personalise > 0, lambda: Homes(arms, state).measure(measure)),
    }
    measured = {name: _measure_once(run, name, how) for name, (is_wanted, how) in measurements.items() if is_wanted}
    forgetting = measure_forgetting(run.config, state) if evaluation.generate else {}
    totals = {arm: arms.totals(arm) for arm in ("federated", "local", "pooled") if arm in measured}
    return {
        **measured,
        **_kept_at_home(run),
        "question_lines": count_lines(measured_sites, split),
        "training": {arm: {name: asdict(total) for name, total in told.items()} for arm, told in totals.items()},
        **({"forgetting": forgetting} if forgetting else {}),
        **({"seen_elsewhere": _without(run, measured, seen)} if seen else {}),
    }


def _measure_once(run: RunFolder, arm: str, measure: Callable[[], list[Measured]]) -> dict[str, Any]:
    """Measure one arm, unless an interrupted run has done so already."""
    path = run.path / "evaluation" / f"{arm}.json"
    if not path.is_file():
        measured = measure()
        write_text(path.with_suffix(".jsonl"), measured_lines(measured))
        write_json(path, summarise_by_site(measured))
    return read_json(path)


def _kept_at_home(run: RunFolder) -> dict[str, Any]:
    """Return how each component did at each site that trained at home, and whether the site keeps its own weights."""
    sites = home_scores(run.path) if run.config.federation.personalise else {}
    told = {site: {component: asdict(score) for component, score in scores.items()} for site, scores in sites.items()}
    return {"at_home": told} if told else {}


def _record_seen(
    run: RunFolder, sites: Sequence[Site], split: MeasuredSplit, training: Sequence[Site]
) -> set[QuestionKey]:
    """Write down, and return, which measured questions have a text that another site trains on."""
    seen: set[QuestionKey] = set()
    for site in sites:
        questions = distinct_questions(site.questions if split == "all" else site.split(split))
        seen |= {(site.name, identity) for identity in trained_elsewhere(site, questions, training)}
    write_seen(run.path / "evaluation", seen)
    return seen


def _without(run: RunFolder, arms: Mapping[str, Any], seen: Collection[QuestionKey]) -> dict[str, Any]:
    """Return how many questions were seen, and the means of each arm over the others."""
    others: dict[str, Any] = {}
    for arm in arms:
        measured = read_measured(run.path / "evaluation" / f"{arm}.jsonl")
        others[arm] = summarise([item for item in measured if item.key not in seen])
    return {"n_questions": len(seen), "without": others}
