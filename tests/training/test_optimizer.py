"""The optimizer against AdamW and FedProx by hand, and its learning rate over all rounds."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from fedrag.config.learning_rates import learning_rate
from fedrag.config.training_settings import OptimizerSection
from fedrag.errors import TrainingDiverged
from fedrag.training.optimizer import MasterOptimizer, Progress

CONSTANT = {"schedule": "constant", "warmup": 0.0, "learning_rate": 0.1, "clip_norm": 1e6}


def settings_of(**changes: object) -> OptimizerSection:
    return OptimizerSection.model_validate(CONSTANT | changes)


def adamw_by_hand(
    weights: np.ndarray, gradient: Callable[[np.ndarray], np.ndarray], rates: list[float], decay: float = 0.0
) -> np.ndarray:
    """Take AdamW steps (Loshchilov and Hutter 2019, algorithm 2) in float64."""
    w, m, v = weights.astype(np.float64), 0.0, 0.0
    for t, rate in enumerate(rates, start=1):
        g = gradient(w)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w * (1 - rate * decay) - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


def quadratic_steps(optimizer: MasterOptimizer, parameter: nn.Parameter, steps: int, target: torch.Tensor) -> None:
    """Descend 1/2 |w - target|^2."""
    for step in range(steps):
        optimizer.add(optimizer.gradients((0.5 * (parameter - target) ** 2).sum()))
        optimizer.step(step / steps)


START = np.array([1.0, -2.0, 0.5], np.float32)
TARGET = np.array([0.0, 3.0, 0.4], np.float32)


def test_steps_are_those_of_adamw_with_decoupled_weight_decay():
    parameter = nn.Parameter(torch.from_numpy(START.copy()))
    optimizer = MasterOptimizer({"w": parameter}, settings_of(weight_decay=0.3))
    quadratic_steps(optimizer, parameter, 5, torch.from_numpy(TARGET))
    expected = adamw_by_hand(START, lambda w: w - TARGET, [0.1] * 5, decay=0.3)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(optimizer.update()["w"], expected - START, atol=1e-6)


def test_fedprox_adds_mu_times_the_distance_from_the_received_state():
    parameter = nn.Parameter(torch.from_numpy(START.copy()))
    optimizer = MasterOptimizer({"w": parameter}, settings_of(), proximal_mu=2.5)
    quadratic_steps(optimizer, parameter, 6, torch.from_numpy(TARGET))
    with_pull = adamw_by_hand(START, lambda w: w - TARGET + 2.5 * (w - START), [0.1] * 6)
    without = adamw_by_hand(START, lambda w: w - TARGET, [0.1] * 6)
    np.testing.assert_allclose(parameter.detach().numpy(), with_pull, atol=1e-6)
    assert np.abs(with_pull - without).max() > 0.01


def test_the_gradient_is_clipped_to_its_norm_over_all_parameters():
    """AdamW hides a common scale of all gradients, so a second, unclipped step is compared as well."""
    parameters = {name: nn.Parameter(torch.zeros(2)) for name in ("a", "b")}
    optimizer = MasterOptimizer(parameters, settings_of(clip_norm=1.0))
    norms = []
    for scale in (10.0, 0.1):
        optimizer.add([scale * torch.tensor([3.0, 4.0])] * 2)
        norms.append(optimizer.step(0.0))
    assert norms == pytest.approx([50 * math.sqrt(2), 0.5 * math.sqrt(2)])
    clipped = np.array([3.0, 4.0]) / math.sqrt(50)
    gradients = iter([clipped, np.array([0.3, 0.4])])
    expected = adamw_by_hand(np.zeros(2), lambda _: next(gradients), [0.1, 0.1])
    for parameter in parameters.values():
        np.testing.assert_allclose(parameter.detach().numpy(), expected, atol=1e-6)


def test_master_weights_add_up_steps_that_bfloat16_alone_would_lose():
    steps, rate = 100, 1e-4
    alone = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    plain = torch.optim.AdamW([alone], lr=rate, weight_decay=0.0)
    parameter = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    ours = MasterOptimizer({"w": parameter}, settings_of(learning_rate=rate))
    for _ in range(steps):
        alone.grad = torch.ones_like(alone)
        plain.step()
        ours.add([torch.ones_like(parameter)])
        ours.step(0.0)
    assert alone.item() == 1.0
    assert ours.update()["w"].item() == pytest.approx(-steps * rate, rel=1e-3)
    assert parameter.item() == pytest.approx(1.0 - steps * rate, abs=2**-8)


def test_masters_start_from_the_received_state_not_from_its_rounding():
    received = np.array([1.001], np.float32)
    parameter = nn.Parameter(torch.from_numpy(received).bfloat16())
    assert parameter.item() == 1.0
    optimizer = MasterOptimizer({"w": parameter}, settings_of(learning_rate=1e-5, weight_decay=0.0), {"w": received})
    optimizer.add([torch.ones_like(parameter)])
    optimizer.step(0.0)
    assert optimizer.update()["w"].item() == pytest.approx(-1e-5, rel=0.02)  # the rounding is no part of it
    assert received.item() == np.float32(1.001)


def test_gradients_add_up_in_float32():
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    optimizer = MasterOptimizer({"w": parameter}, settings_of())
    for value in (256.0, 1.0):  # 257 is no bfloat16
        optimizer.add([torch.full_like(parameter, value)])
    assert optimizer.step(0.0) == 257.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_the_training_and_changes_nothing(bad):
    parameter = nn.Parameter(torch.from_numpy(START.copy()))
    optimizer = MasterOptimizer({"w": parameter}, settings_of())
    optimizer.add([torch.tensor([0.1, bad, 0.1])])
    with pytest.raises(TrainingDiverged, match="gradient is not finite"):
        optimizer.step(0.0)
    np.testing.assert_array_equal(parameter.detach().numpy(), START)
    assert not optimizer.update()["w"].any()


def test_a_parameter_without_gradient_stays():
    parameters = {name: nn.Parameter(torch.ones(2)) for name in ("used", "unused")}
    optimizer = MasterOptimizer(parameters, settings_of(weight_decay=0.5))
    optimizer.add([torch.ones(2), None])
    optimizer.step(0.0)
    assert not optimizer.update()["unused"].any()
    assert optimizer.update()["used"].all()


# The schedule


def rates(settings: OptimizerSection, rounds: int, steps: int) -> list[list[float]]:
    return [
        [learning_rate(settings, Progress(index, rounds).at(step, steps)) for step in range(steps)]
        for index in range(rounds)
    ]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_schedule_goes_on_from_round_to_round(schedule):
    """Five rounds of eight steps have the rates of one round of forty."""
    settings = settings_of(schedule=schedule, warmup=0.1, learning_rate=1.0)
    in_rounds = [rate for part in rates(settings, 5, 8) for rate in part]
    np.testing.assert_allclose(in_rounds, rates(settings, 1, 40)[0], atol=1e-12)


def test_linear_decay_by_hand():
    settings = settings_of(schedule="linear", warmup=0.0, learning_rate=2.0)
    np.testing.assert_allclose(rates(settings, 2, 2), [[1.75, 1.25], [0.75, 0.25]])


def test_cosine_decay_by_hand():
    settings = settings_of(schedule="cosine", warmup=0.0, learning_rate=2.0)
    by_hand = [[1 + math.cos(math.pi * x) for x in part] for part in ((0.125, 0.375), (0.625, 0.875))]
    np.testing.assert_allclose(rates(settings, 2, 2), by_hand)


def test_warm_up_rises_once_over_its_share_of_all_rounds():
    settings = settings_of(schedule="constant", warmup=0.5, learning_rate=1.0)
    np.testing.assert_allclose(rates(settings, 2, 4), [[0.125, 0.375, 0.625, 0.875], [1.0] * 4])
    linear = settings_of(schedule="linear", warmup=0.2, learning_rate=1.0)
    flat = [rate for part in rates(linear, 4, 25) for rate in part]
    assert flat[:20] == sorted(flat[:20])
    assert flat[20:] == sorted(flat[20:], reverse=True)
    assert max(flat) == pytest.approx(1.0, abs=0.05)


def test_no_step_of_a_site_with_few_examples_is_wasted():
    """A rate taken at the start of a step was 0 in the first: a site with one step a round learnt nothing in it."""
    for steps in (1, 2, 3):
        assert min(min(part) for part in rates(settings_of(warmup=0.05, schedule="linear"), 2, steps)) > 0


@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_rates_stay_between_nothing_and_the_peak(schedule, warmup):
    settings = settings_of(schedule=schedule, warmup=warmup, learning_rate=1.0)
    assert all(0 <= learning_rate(settings, done) <= 1 for done in np.linspace(0, 1, 201))
