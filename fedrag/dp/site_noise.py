"""Noise that covers whole clients, in simulations of many: DP-FedAvg (McMahan et al. 2018, arXiv 1710.06963).

    d = (1 / (q n)) (sum_i d_i min(1, C / |d_i|) + z C N(0, 1)),  each of the n clients in the sum with probability q

d_i is what client i sends of a component. The division is by the expected number of clients, not by how many there
were, so that one client more moves the sum alone, by at most C. Each component of each round is one such step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedrag.config.scenario import Config
from fedrag.config.schedule import rounds_training, trained_components
from fedrag.dp.accounting import Event, epsilon_of, has_accounting, noise_for, usual_delta
from fedrag.dp.feasibility import SMALL_ADAPTER, NoisePlan, ratio_text
from fedrag.dp.noise import Entropy, gaussian, poisson_sample
from fedrag.errors import ConfigError

FEWEST_CLIENTS = 100
"""With fewer, noise that covers a whole client leaves nothing of what they have learnt."""
WARNING = (
    "noise that covers whole clients: a figure for a simulation of many. It holds for the trained models, not for the "
    "log of this run, which tells figures of single clients; a deployment of some organisations has too few for it"
)
_MOST_TIMES = 10.0
"""How many times the noise that was planned a round may have: with more it would teach nothing, and only spend."""
_ROUNDING = 1e-6  # by which a clipped norm may be too large


@dataclass(frozen=True, slots=True)
class SiteNoise:
    """The noise of one round.

    Attributes:
        event: Noise multiplier z and sample rate q of one component's step.
        clip_norm: Largest norm C of a client's difference.
        clients: Clients n that may be drawn.
        entropy: Where chance comes from.
    """

    event: Event
    clip_norm: float
    clients: int
    entropy: Entropy = os.urandom

    def draw(self) -> list[int]:
        """Return the rows of the clients that are asked, perhaps none."""
        return poisson_sample(self.clients, self.event.sample_rate, self.entropy)


class NoisedMean:
    """Sums clipped differences, adds noise and divides by the expected number of clients.

    Args:
        size: Elements of a difference.
        noise: The noise of the round.
    """

    def __init__(self, size: int, noise: SiteNoise) -> None:
        self._sum = np.zeros(size)
        self._noise = noise

    def add(self, flat: npt.NDArray[np.float32], weight: int = 1, site: str = "") -> None:
        """Add one client's difference, scaled down to the clip norm if it is longer; all clients weigh the same."""
        exact = flat.astype(np.float64)
        norm = float(np.linalg.norm(exact))
        limit = self._noise.clip_norm * (1.0 - _ROUNDING)
        self._sum += exact * min(1.0, limit / norm) if norm else exact

    def result(self) -> npt.NDArray[np.float32]:
        """Return the noised mean, float32 of shape `(size,)`; of no client it is noise alone."""
        noise = self._noise
        deviation = noise.event.noise_multiplier * noise.clip_norm
        noised = self._sum + gaussian(self._sum.size, deviation, noise.entropy)
        mean: npt.NDArray[np.float32] = (noised / (noise.event.sample_rate * noise.clients)).astype(np.float32)
        return mean


def site_noise(config: Config, clients: int, able: int, past: Sequence[Event], round_number: int) -> SiteNoise:
    """Return the noise of a round: as planned, or more where rounds were added after the first plan.

    Args:
        config: The scenario.
        clients: Clients of the run, whose number is no secret.
        able: Those of them that may be drawn for this round.
        past: Steps of the rounds that are done.
        round_number: The round.

    Raises:
        ConfigError: The rounds that are done have spent epsilon.
    """
    settings, rate = config.simulation.site_noise, config.federation.fraction
    steps, delta = site_noise_steps(config), usual_delta(clients)
    planned = noise = noise_for(settings.epsilon, delta, rate, steps)
    to_come = steps - site_noise_steps(config, before=round_number)
    as_planned = all(event.noise_multiplier >= noise and event.sample_rate <= rate for event in past)
    if not as_planned or sum(event.steps for event in past) + to_come > steps:
        noise = noise_for(settings.epsilon, delta, rate, to_come, past)
    if noise > _MOST_TIMES * planned:
        raise ConfigError(
            f"simulation.site_noise.epsilon = {settings.epsilon:g} is spent: the rounds that are done had noise for "
            "fewer rounds; begin a new run"
        )
    return SiteNoise(Event(noise, rate, 1), settings.clip_norm, able)


def site_noise_steps(config: Config, before: int | None = None) -> int:
    """Return how many noised steps a run takes, or took before a round: one for each component that it trains."""
    names = trained_components(config.federation)
    return sum(rounds_training(config.federation, name, before=before) for name in names)


def logged(noise: SiteNoise, clients: int, components: int) -> dict[str, Any]:
    """Return what a round's log holds of its noise, from which `noised_steps` and `spent_epsilon` are read."""
    return {"clients": clients, "steps": [asdict(noise.event)] * components}


def noised_steps(records: Iterable[Mapping[str, Any]]) -> list[Event]:
    """Return the steps of logged rounds that had noise which covers whole clients."""
    return [Event(**step) for record in records for step in record.get("site_noise", {}).get("steps", ())]


def spent_epsilon(records: Sequence[Mapping[str, Any]]) -> tuple[float | None, float] | None:
    """Return epsilon and delta of the logged rounds; None: none had noise, and for epsilon: fedrag[dp] is missing."""
    clients = [record["site_noise"]["clients"] for record in records if "site_noise" in record]
    if not clients:
        return None
    delta = usual_delta(min(clients))
    return epsilon_of(noised_steps(records), delta) if has_accounting() else None, delta


def site_noise_plan(config: Config, weights: int, clients: int) -> NoisePlan:
    """Return the noised averaging of a component with so many weights."""
    settings = config.simulation.site_noise
    return NoisePlan(
        settings.epsilon, site_noise_steps(config), weights, config.federation.fraction, usual_delta(clients)
    )


def require_many_clients(config: Config, clients: int) -> None:
    """Refuse noise that covers whole clients where they are few.

    Raises:
        ConfigError: There are fewer than `FEWEST_CLIENTS`.
    """
    if clients >= FEWEST_CLIENTS:
        return
    cost = ratio_text(site_noise_plan(config, SMALL_ADAPTER, clients).ratio(clients))
    raise ConfigError(
        f"simulation.site_noise.epsilon needs {FEWEST_CLIENTS} clients or more, and there are {clients}: in "
        f"{SMALL_ADAPTER:,} weights the noise would be {cost}; [privacy] covers single questions"
    )
