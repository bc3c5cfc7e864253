"""Noise that covers whole clients: the clip bound, the noise, and what it adds up to by the closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm
from tiny_federation import tiny_config

from fedrag.coordinator.jobs import checked
from fedrag.coordinator.server_folder import ServerConfig, ServerFolder
from fedrag.dp.accounting import Event
from fedrag.dp.site_noise import NoisedMean, SiteNoise, logged, noised_steps, require_many_clients, site_noise
from fedrag.errors import ConfigError


def noise(multiplier: float = 0.0, rate: float = 0.5, clip_norm: float = 2.0, clients: int = 8) -> SiteNoise:
    return SiteNoise(Event(multiplier, rate, 1), clip_norm, clients)


def mean_of(differences: np.ndarray, settings: SiteNoise) -> np.ndarray:
    aggregator = NoisedMean(differences.shape[1], settings)
    for difference in differences:
        aggregator.add(difference.astype(np.float32))
    return aggregator.result()


def config(rounds: int = 4, epsilon: float = 4.0, fraction: float = 1.0, **settings: Any) -> Any:
    federation = {"rounds": rounds, "schedule": "retriever", "weighting": "equal", "fraction": fraction}
    return tiny_config(
        federation=federation | settings.pop("federation", {}),
        simulation={"site_noise": {"epsilon": epsilon}},
        **settings,
    )


def gaussian_epsilon(noise_multiplier: float, steps: int, delta: float) -> float:
    """Epsilon of Gaussian mechanisms in closed form (Balle and Wang 2018, theorem 8): of T steps, mu = sqrt(T) / z."""
    mu = math.sqrt(steps) / noise_multiplier

    def excess(epsilon: float) -> float:
        below = norm.cdf(-epsilon / mu - mu / 2)
        return float(norm.cdf(-epsilon / mu + mu / 2) - math.exp(epsilon) * below - delta)

    return float(brentq(excess, 0.0, 100.0))


def test_a_mean_is_of_clipped_differences_over_the_expected_number_of_clients():
    differences = np.array([[3.0, 4.0], [0.3, 0.0], [0.0, -8.0]])
    expected = (np.array([1.2, 1.6]) + np.array([0.3, 0.0]) + np.array([0.0, -2.0])) / (0.5 * 8)
    np.testing.assert_allclose(mean_of(differences, noise()), expected, rtol=1e-5)


def test_one_client_more_moves_the_sum_by_no_more_than_the_clip_norm():
    chance = np.random.default_rng(5)
    for _ in range(50):
        differences = chance.normal(0.0, chance.choice([1e-3, 1.0, 1e3]), (4, 30))
        moved = (mean_of(differences, noise()) - mean_of(differences[:3], noise())).astype(np.float64) * 0.5 * 8
        size = float(np.linalg.norm(differences[3]))
        assert np.linalg.norm(moved) <= 2.0 * (1 + 1e-6)
        assert np.linalg.norm(moved) == pytest.approx(min(2.0, size), rel=1e-4, abs=1e-5)


def test_the_noise_has_its_deviation_and_comes_without_any_client():
    found = mean_of(np.zeros((0, 40_000)), noise(multiplier=3.0))
    assert found.std() == pytest.approx(3.0 * 2.0 / (0.5 * 8), rel=0.03)


def test_each_client_is_drawn_with_its_chance_alone():
    drawn = [noise(rate=0.3, clients=20).draw() for _ in range(2_000)]
    counts = np.bincount([row for rows in drawn for row in rows], minlength=20) / 2_000
    np.testing.assert_allclose(counts, 0.3, atol=0.06)
    assert np.std([len(rows) for rows in drawn]) == pytest.approx(math.sqrt(20 * 0.3 * 0.7), rel=0.1)


@pytest.mark.parametrize(("epsilon", "rounds"), [(1.0, 1), (4.0, 4), (8.0, 20)])
def test_all_rounds_spend_epsilon_by_the_closed_form(epsilon, rounds):
    found = site_noise(config(rounds, epsilon), 200, 200, [], 1)
    spent = gaussian_epsilon(found.event.noise_multiplier, rounds, 1 / 2_000)
    assert epsilon - 0.05 < spent <= epsilon


def test_drawing_few_clients_needs_less_noise_and_every_component_is_a_step():
    alone, few = (site_noise(config(fraction=share), 200, 200, [], 1).event for share in (1.0, 0.1))
    assert few.noise_multiplier < 0.5 * alone.noise_multiplier
    both = site_noise(config(federation={"schedule": "joint"}), 200, 200, [], 1).event
    assert both == site_noise(config(rounds=8), 200, 200, [], 1).event


def test_rounds_that_are_added_have_more_noise_and_none_once_epsilon_is_spent():
    first = site_noise(config(), 200, 200, [], 1)
    records = [{"round": number, "site_noise": logged(first, 200, 1)} for number in (1, 2, 3, 4)]
    assert noised_steps(records) == [first.event] * 4
    assert site_noise(config(), 200, 200, noised_steps(records[:3]), 4).event == first.event
    more = site_noise(config(rounds=6), 200, 200, noised_steps(records[:3]), 4)
    assert more.event.noise_multiplier > first.event.noise_multiplier
    with pytest.raises(ConfigError, match="is spent"):
        site_noise(config(rounds=6), 200, 200, noised_steps(records), 5)


def test_few_clients_are_refused_with_the_reason():
    require_many_clients(config(), 100)
    with pytest.raises(ConfigError, match="needs 100 clients or more, and there are 20: .* noise would be .* signal"):
        require_many_clients(config(), 20)


def test_a_deployment_is_refused_with_the_reason(tmp_path):
    with pytest.raises(ConfigError, match="simulations of many clients alone"):
        checked(ServerFolder(tmp_path, ServerConfig(name="127.0.0.1")), config())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"weighting": "examples"}, "weighting"),
        ({"robust": "clipping"}, "robust"),
        ({"rule": "svd"}, "rule"),
        ({"secure": True}, "secure"),
        ({"keep": "best"}, "keep"),
        ({"max_norm_of_median": 4.0}, "max_norm_of_median"),
    ],
)
def test_what_is_no_plain_sum_is_refused(settings, reason):
    with pytest.raises(ConfigError, match=f"site_noise.*{reason}"):
        config(federation=settings)
