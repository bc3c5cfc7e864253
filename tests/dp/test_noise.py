"""Sampling and noise: their distributions, and that no seed foretells them."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest

from fedrag.dp.noise import gaussian, poisson_sample


def test_each_row_is_drawn_with_its_chance_whatever_the_others_do():
    draws = np.zeros((4_000, 6), bool)
    for row in draws:
        row[poisson_sample(6, 0.3)] = True
    sizes = np.bincount(draws.sum(axis=1), minlength=7) / len(draws)
    np.testing.assert_allclose(draws.mean(axis=0), 0.3, atol=0.04)
    np.testing.assert_allclose(sizes, binom.pmf(range(7), 6, 0.3), atol=0.04)
    assert sizes[0] > 0.05, "a step may be empty"
    assert abs(np.corrcoef(draws[:, 0], draws[:, 1])[0, 1]) < 0.08


def test_a_rate_of_one_draws_all():
    assert poisson_sample(500, 1.0) == list(range(500))


def test_noise_is_normal_with_its_deviation():
    values = gaussian(60_001, 2.5)
    assert values.shape == (60_001,)
    assert kstest(values / 2.5, "norm").pvalue > 1e-5
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.03


def test_chance_comes_from_the_operating_system_and_from_no_seed():
    drawn = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002  # the seed that must not matter
        torch.manual_seed(0)
        drawn.append(gaussian(4, 1.0))
    assert not np.array_equal(*drawn)
    assert gaussian.__defaults__ == (os.urandom,)
    assert poisson_sample.__defaults__ == (os.urandom,)


@pytest.mark.parametrize("byte", [b"\x00", b"\xff"])
def test_the_rarest_bytes_give_finite_noise(byte):
    assert np.isfinite(gaussian(8, 1.0, lambda count: byte * count)).all()
