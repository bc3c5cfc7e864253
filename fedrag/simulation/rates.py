"""Lets an arm try learning rates: each trains it anew, and the sites' validation questions decide."""

from __future__ import annotations

import shutil
from pathlib import Path

from fedrag.config.schedule import trained_components
from fedrag.errors import QuorumError
from fedrag.evaluation.evaluate import measure_sites
from fedrag.evaluation.records import TITLES, Measured, mean
from fedrag.rag.indexing import shared_indexes
from fedrag.runs.rate_tries import SCORED_BY, RateTries, Scores, rate_text
from fedrag.simulation.train_arms import Arm, Arms
from fedrag.types import COMPONENTS, State


def try_rates(arms: Arms, arm: Arm) -> None:
    """Train an arm with each rate of the scenario that it has not tried yet, and measure it.

    Raises:
        QuorumError: The arm could be trained with none of them.
    """
    tries, display = RateTries(arms.run.path, arm), arms.parts.display
    for rate in sorted(arms.run.config.evaluation.rates):
        if rate not in tries.scores():
            display.say(f"{arm}: trying a learning rate of {rate_text(rate)}")
            scores = _try_rate(arms, arm, rate, tries.folder(rate))
            tries.record(rate, scores)
            display.say(f"{arm} at {rate_text(rate)}: {_scores_text(scores)}")
        shutil.rmtree(tries.folder(rate), ignore_errors=True)
    best = tries.best()
    if not best:
        raise QuorumError(f"the {arm} arm could be trained with none of evaluation.rates; name smaller ones")
    display.say(f"{arm}: " + ", ".join(f"{component} at {rate_text(rate)}" for component, rate in best.items()))


def _try_rate(arms: Arms, arm: Arm, rate: float, folder: Path) -> Scores:
    config = arms.config(arm, dict.fromkeys(COMPONENTS, rate))
    components = trained_components(config.federation)

    def measure(site_names: set[str], state: State) -> list[Measured]:
        sites = [site for site in arms.sites if site.name in site_names and site.validation]
        return measure_sites(sites, "validation", config, state, True, arms.parts.display, shared_indexes())

    everyone = {site.name for site in arms.sites}
    measured: list[Measured] = []
    try:
        if arm == "local":
            for name, state in arms.train_local(config, folder).items():
                measured += measure({name}, state)
        elif arm == "pooled":
            state = arms.train_pooled(config, folder)
            if not state:  # it diverged, and would score as the untouched models do
                return dict.fromkeys(components)
            measured = measure(everyone, state)
        else:
            undelivered = config.federation.model_copy(update={"deliver": False})
            state = arms.train_federated(config.model_copy(update={"federation": undelivered}), folder)
            measured = measure(everyone, state)
    except QuorumError as error:
        arms.parts.display.say(f"{arm} could not be trained at {rate_text(rate)}: {error}")
        return dict.fromkeys(components)
    return {component: mean(measured, SCORED_BY[component]) for component in components}


def _scores_text(scores: Scores) -> str:
    """Return the scores of a try in words, in per cent."""
    told = [f"{TITLES[SCORED_BY[name]]} {100 * score:.1f}" for name, score in scores.items() if score is not None]
    return ", ".join(told) or "not trained"
