"""Decides at a site how much noise a round gets, and whether the round may begin at all.

The scenario's epsilon holds for all that the run takes from the site: rounds that were done, with the noise that they
had, and rounds to come. One that is repeated, after a crash for example, costs again, and those after it get more
noise. The site's own max_epsilon holds across runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedrag.components.work import Workbench
from fedrag.config.scenario import Config
from fedrag.config.schedule import rounds_training, trained_components
from fedrag.dp.accounting import Event, has_accounting, noise_for, usual_delta
from fedrag.dp.ledger import LEDGER_FILE, PrivacyLedger, entry_of
from fedrag.dp.noise_costs import planned_steps
from fedrag.dp.units import count_units
from fedrag.federation.messages import Request
from fedrag.training.private_steps import NoisedSteps
from fedrag.types import Component

_MOST_TIMES = 10.0
"""How many times the noise that was planned a round may have: with more it would teach nothing, and only spend."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a round may spend.

    Attributes:
        refusal: Why it may not begin, a code; "" if it may.
        noise: Its steps; None where the run adds no noise.
    """

    refusal: str = ""
    noise: NoisedSteps | None = None


def budget_of(bench: Workbench, request: Request, max_epsilon: float) -> Budget:
    """Return what a round may spend; nothing is written yet.

    Args:
        bench: The site's data, folders and settings.
        request: The round.
        max_epsilon: The most that all runs together may spend, by the site's policy; 0: no limit.

    Raises:
        StorageError: The ledger cannot be read.
    """
    settings = bench.config.privacy
    if not settings.is_on:
        return Budget("policy-epsilon" if max_epsilon else "")
    if not has_accounting():
        return Budget("no-accounting")
    ledger, run = ledger_of(bench), run_name(bench)
    units = count_units(bench.site.train)
    delta = delta_of(bench.config, units)
    planned = noise_for(settings.epsilon, delta, settings.sample_rate, planned_steps(bench.config))
    noise = _noise(bench.config, request, ledger.events(run), delta, planned)
    if noise > _MOST_TIMES * planned:
        return Budget("epsilon-spent")
    event = Event(noise, settings.sample_rate, settings.steps)
    this_round = [event] * len(request.components)
    if max_epsilon and ledger.epsilon(min(delta, usual_delta(units)), this_round) > max_epsilon:
        return Budget("policy-epsilon")
    return Budget(noise=NoisedSteps(event, settings.clip_norm))


def spend(bench: Workbench, request: Request, noise: NoisedSteps, components: Sequence[Component]) -> float:
    """Write what a round spends, before it trains; return epsilon of the run with it.

    Raises:
        StorageError: It cannot be written: the round must not train.
    """
    ledger, run = ledger_of(bench), run_name(bench)
    units = count_units(bench.site.train)
    ledger.write([entry_of(run, request.round_number, name, noise.event, units) for name in components])
    return ledger.epsilon(delta_of(bench.config, units), run=run)


def ledger_of(bench: Workbench) -> PrivacyLedger:
    """Return the site's ledger; a simulated site has one in the run's folder."""
    return PrivacyLedger(bench.cache / LEDGER_FILE)


def run_name(bench: Workbench) -> str:
    """Return the name under which a run is in the ledger."""
    return bench.run or bench.config.name


def delta_of(config: Config, units: int) -> float:
    """Return the delta of a scenario at a site with so many training questions or subjects."""
    return usual_delta(units) if config.privacy.delta == "auto" else config.privacy.delta


def _noise(config: Config, request: Request, past: Sequence[Event], delta: float, planned: float) -> float:
    """Return the noise multiplier of a round: the one that was planned, or more where the past has cost more."""
    settings = config.privacy
    to_come = settings.steps * _trainings_to_come(config, request)
    # As many steps as were planned, and none with less noise: no need to add them up.
    as_planned = all(event.noise_multiplier >= planned and event.sample_rate <= settings.sample_rate for event in past)
    if as_planned and sum(event.steps for event in past) + to_come <= planned_steps(config):
        return planned
    return noise_for(settings.epsilon, delta, settings.sample_rate, to_come, past)


def _trainings_to_come(config: Config, request: Request) -> int:
    """Return how often a component is still trained, in this round and those after it."""
    return sum(
        max(
            rounds_training(config.federation, name)
            - rounds_training(config.federation, name, before=request.round_number),
            int(name in request.components),
        )
        for name in {*trained_components(config.federation), *request.components}
    )
