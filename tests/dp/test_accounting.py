"""Epsilon against other computations: without sampling the closed form, with it convolution of the privacy loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
from opacus.accountants import PRVAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from fedrag.dp.accounting import Event, epsilon_of, noise_for, usual_delta

SLACK = 1e-3
"""By how much epsilon may be too large."""


def gaussian_epsilon(noise: float, steps: int, delta: float) -> float:
    """Epsilon of Gaussian mechanisms, exactly (Balle and Wang 2018, theorem 8; they compose as one)."""
    mu = math.sqrt(steps) / noise
    return brentq(lambda e: norm.cdf(mu / 2 - e / mu) - math.exp(e) * norm.cdf(-mu / 2 - e / mu) - delta, 0, 300)


def convolved_epsilon(events: list[Event], delta: float, reverse: bool) -> float:
    """Epsilon of sampled Gaussian mechanisms by convolution of the losses' masses, each rounded to a fine grid.

    P is the output with the question, (1 - q) N(0, z) + q N(1, z), and Q the one without, N(0, z).
    """
    width, size = 2e-3, 2**17
    total = np.zeros(size)
    total[size // 2] = 1.0
    for event in events:
        z, q = event.noise_multiplier, event.sample_rate
        x = np.linspace(-12 * z, 12 * z + 1, 400_001)
        without = norm.pdf(x, 0, z)
        present = (1 - q) * without + q * norm.pdf(x, 1, z)
        first, second = (without, present) if reverse else (present, without)
        loss = np.log(first) - np.log(second)
        mass = first / first.sum()
        masses = np.bincount(np.round(loss / width).astype(int) + size // 2, weights=mass, minlength=size)
        spectrum = np.fft.rfft(np.fft.ifftshift(masses)) ** event.steps
        total = np.fft.fftshift(np.fft.irfft(np.fft.rfft(np.fft.ifftshift(total)) * spectrum, size))
    losses = (np.arange(size) - size // 2) * width

    def excess(epsilon: float) -> float:
        above = losses > epsilon
        return float((total[above] * -np.expm1(epsilon - losses[above])).sum()) - delta

    return brentq(excess, 0, 60)


@pytest.mark.parametrize(
    ("noise", "steps", "delta"), [(5.0, 20, 5e-5), (2.5, 20, 5e-5), (1.0, 1, 1e-3), (50, 20, 5e-4)]
)
def test_epsilon_without_sampling_is_the_closed_form_and_never_below_it(noise, steps, delta):
    found, exact = epsilon_of([Event(noise, 1.0, steps)], delta), gaussian_epsilon(noise, steps, delta)
    assert exact <= found <= exact + SLACK


SAMPLED = [
    [Event(1.0, 0.1, 70)],
    [Event(0.92, 0.128, 70)],
    [Event(1.1, 0.128, 40), Event(2.0, 0.5, 10), Event(3.0, 1.0, 5)],
]
MANY_SMALL = [[Event(20.0, 0.01, 5_000)], [Event(5.0, 0.01, 50_000)]]


@pytest.mark.parametrize("events", SAMPLED)
def test_epsilon_with_sampling_is_that_of_the_convolved_losses_in_the_worse_direction(events):
    exact = max(convolved_epsilon(events, 5e-5, reverse) for reverse in (False, True))
    found = epsilon_of(events, 5e-5)
    assert exact - 1e-3 <= found <= exact + SLACK
    assert epsilon_of(reversed(events), 5e-5) == found


@pytest.mark.parametrize("events", [*SAMPLED, *MANY_SMALL])
def test_epsilon_with_sampling_is_in_the_range_of_another_accountant(events):
    """Opacus bounds it from above by numerical composition (Gopi et al. 2021), at most twice 0.01 too high."""
    other = PRVAccountant()
    other.history = [(event.noise_multiplier, event.sample_rate, event.steps) for event in events]
    bound = other.get_epsilon(5e-5, eps_error=0.01)
    assert bound - 0.02 <= epsilon_of(events, 5e-5) <= bound


@pytest.mark.parametrize(
    ("units", "batch", "steps", "epsilon", "told"),
    [(500, 64, 70, 8, 4.2), (2_000, 256, 70, 8, 1.1), (2_000, 256, 70, 2, 2.7), (10_000, 256, 390, 4, 1.1)],
)
def test_the_noise_is_that_of_a_looser_accountant_or_a_tenth_less(units, batch, steps, epsilon, told):
    """The norm of the noise over clip norm times batch, for 83,000 weights, was worked out by Renyi accounting."""
    noise = noise_for(epsilon, usual_delta(units), batch / units, steps)
    assert 0.85 * told <= noise * math.sqrt(83_000) / batch <= told + 0.05


def test_noise_is_enough_and_hardly_more():
    noise = noise_for(4.0, 1e-4, 0.25, 20)
    assert epsilon_of([Event(noise, 0.25, 20)], 1e-4) <= 4.0
    assert epsilon_of([Event(0.99 * noise, 0.25, 20)], 1e-4) > 4.0


def test_what_is_past_asks_for_more_noise_until_no_noise_is_enough():
    past = [Event(2.0, 1.0, 5)]
    spent = epsilon_of(past, 1e-4)
    later = noise_for(1.2 * spent, 1e-4, 1.0, 5, past)
    assert later > 2.0
    assert epsilon_of([*past, Event(later, 1.0, 5)], 1e-4) <= 1.2 * spent
    assert noise_for(0.9 * spent, 1e-4, 1.0, 5, past) == math.inf


def test_nothing_costs_nothing_and_no_noise_costs_all():
    assert epsilon_of([], 1e-4) == 0.0
    assert epsilon_of([Event(1.0, 1.0, 1), Event(0.0, 0.5, 1)], 1e-4) == math.inf
    assert epsilon_of([Event(0.05, 0.1, 5)], 1e-4) > 500, "far too little noise, yet a bound"
