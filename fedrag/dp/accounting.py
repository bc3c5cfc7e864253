"""What noised steps add up to: epsilon of Poisson-sampled Gaussian mechanisms, and the noise that an epsilon asks for.

A question's part of a step has at most the norm C, and the step's noise the standard deviation z C, z the noise
multiplier. Epsilon at delta comes from the distribution of the privacy loss (Doroshenko et al. 2022), as dp-accounting
composes it: an upper bound, at most 0.001 above the true value. A very large epsilon comes from Renyi differential
privacy (Mironov et al. 2019), a looser upper bound, as Opacus computes it.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq

from fedrag.errors import ConfigError

LARGE_EPSILON = 50.0
"""Above it the looser bound is enough: it says that nothing is protected."""
_LIBRARIES = ("dp_accounting", "opacus")
_COARSE, _FINE = 1e-3, 1e-4  # widths of the cells that losses are put into
_MANY_STEPS = 100  # the errors of as many steps add up to more than the finer cells cost
_LOG_NOISE_ERROR = 0.002
_MOST_LOG_NOISE = 14.0


@dataclass(frozen=True, slots=True)
class Event:
    """Steps of one kind.

    Attributes:
        noise_multiplier: Standard deviation of the noise, in clip norms.
        sample_rate: Chance of each question to be in a step.
        steps: How many.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int


def require_accounting(setting: str = "privacy.epsilon") -> None:
    """Refuse to account for noise if the libraries that do are missing.

    Args:
        setting: What asks for noise.

    Raises:
        ConfigError: They are not installed.
    """
    if not has_accounting():
        raise ConfigError(f"{setting} needs the libraries opacus and dp-accounting; run: pip install 'fedrag[dp]'")


def has_accounting() -> bool:
    """Return whether the libraries that account for noise are installed."""
    return all(importlib.util.find_spec(library) is not None for library in _LIBRARIES)


def usual_delta(units: int) -> float:
    """Return one in ten times the number of questions, or subjects, that are protected.

    >>> usual_delta(500)
    0.0002
    """
    return 1.0 / (10 * max(1, units))


def epsilon_of(events: Iterable[Event], delta: float) -> float:
    """Return an upper bound of epsilon after all of some steps, whatever their order; infinity without noise.

    Raises:
        ConfigError: The libraries that account for noise are not installed.
    """
    steps: Counter[tuple[float, float]] = Counter()
    for event in events:
        steps[event.noise_multiplier, event.sample_rate] += event.steps
    history = tuple((noise, rate, count) for (noise, rate), count in sorted(steps.items()) if count and rate)
    if not history:
        return 0.0
    if any(noise <= 0 for noise, _, _ in history):
        return math.inf
    return _composed(history, delta)


def noise_for(epsilon: float, delta: float, sample_rate: float, steps: int, past: Sequence[Event] = ()) -> float:
    """Return the least noise multiplier with which so many steps, after those that are past, stay within epsilon.

    Returns:
        It, at most 0.2 % too large; infinity where no noise is enough, since the past has used epsilon up.

    Raises:
        ConfigError: The libraries that account for noise are not installed.
    """
    return _noise_for(epsilon, delta, sample_rate, steps, tuple(past))


@lru_cache(maxsize=256)
def _noise_for(epsilon: float, delta: float, sample_rate: float, steps: int, past: tuple[Event, ...]) -> float:
    def excess(log_noise: float) -> float:
        return epsilon_of([*past, Event(math.exp(log_noise), sample_rate, steps)], delta) - epsilon

    high = 0.0
    while excess(high) > 0:
        high += 1.0
        if high > _MOST_LOG_NOISE:
            return math.inf
    low = high - 1.0
    while excess(low) <= 0:
        if low < -_MOST_LOG_NOISE:
            return math.exp(low)
        low, high = low - 1.0, low
    # Its own error may lie on the wrong side of epsilon; a step of that size lies on the right one.
    found = float(brentq(excess, low, high, xtol=_LOG_NOISE_ERROR / 2))
    while excess(found) > 0:
        found += _LOG_NOISE_ERROR / 2
    return math.exp(found)


@lru_cache(maxsize=4096)
def _composed(history: tuple[tuple[float, float, int], ...], delta: float) -> float:
    """Return epsilon of (noise multiplier, sample rate, steps) in any order."""
    require_accounting()
    from opacus.accountants import RDPAccountant  # an optional library, which imports torch

    loose = RDPAccountant()
    loose.history = [*history]
    with warnings.catch_warnings(), np.errstate(all="ignore"):  # a rate of 1 divides by 0 on the way, to no harm
        warnings.simplefilter("ignore")  # that the best Renyi order is the first or last: the bound holds
        bound = float(loose.get_epsilon(delta))
    if bound > LARGE_EPSILON:
        return bound
    width = _FINE if bound < 1 or sum(steps for _, _, steps in history) > _MANY_STEPS else _COARSE
    return min(bound, _by_loss_distribution(history, delta, width))


def _by_loss_distribution(history: tuple[tuple[float, float, int], ...], delta: float, width: float) -> float:
    from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent  # an optional library
    from dp_accounting.pld import PLDAccountant  # as above

    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=width)
    for noise, rate, steps in history:
        accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), steps)
    return float(accountant.get_epsilon(delta))
