"""What noised steps add up to: epsilon of Poisson-sampled Gaussian mechanisms, and the noise that an epsilon asks for.

A question's part of a step has at most the norm C, and the step's noise the standard deviation z C, z the noise
multiplier. Epsilon at delta comes from numerical composition of the privacy loss (Gopi et al. 2021), as Opacus'
accountant computes it: an upper bound, at most 0.02 above the true value. Where that is not to be had, very large
epsilons for example, from Renyi differential privacy (Mironov et al. 2019), a looser upper bound.
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
_EPSILON_ERROR = 0.01
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


def require_opacus(setting: str = "privacy.epsilon") -> None:
    """Refuse to account for noise if the library that does is missing.

    Args:
        setting: What asks for noise.

    Raises:
        ConfigError: It is not installed.
    """
    if not has_opacus():
        raise ConfigError(f"{setting} needs the library opacus; run: pip install 'fedrag[dp]'")


def has_opacus() -> bool:
    """Return whether the library that accounts for noise is installed."""
    return importlib.util.find_spec("opacus") is not None


def usual_delta(units: int) -> float:
    """Return one in ten times the number of questions, or subjects, that are protected.

    >>> usual_delta(500)
    0.0002
    """
    return 1.0 / (10 * max(1, units))


def epsilon_of(events: Iterable[Event], delta: float) -> float:
    """Return an upper bound of epsilon after all of some steps, whatever their order; infinity without noise.

    Raises:
        ConfigError: Opacus is not installed.
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
        ConfigError: Opacus is not installed.
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
    require_opacus()
    from opacus.accountants import PRVAccountant, RDPAccountant  # an optional library, which imports torch

    loose, tight = RDPAccountant(), PRVAccountant()
    loose.history = [*history]
    tight.history = [*history]
    with warnings.catch_warnings(), np.errstate(all="ignore"):  # a rate of 1 divides by 0 on the way, to no harm
        warnings.simplefilter("ignore")  # that the best Renyi order is the first or last: the bound holds
        bound = float(loose.get_epsilon(delta))
        if bound > LARGE_EPSILON:
            return bound
        try:
            return min(bound, float(tight.get_epsilon(delta, eps_error=_EPSILON_ERROR)))
        except (RuntimeError, ValueError):  # its grid is too coarse for this delta
            return bound
