"""DP-SGD (Abadi et al. 2016): steps to which each question gives a bounded part, under noise that covers it.

    g = (1 / (q n)) (sum_i g_i min(1, C / |g_i|) + z C N(0, 1)),  each of the n units in the sum with probability q

g_i is the gradient of unit i alone (`unit_gradients.py`), |g_i| its norm over all trained weights at once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from fedrag.dp.accounting import Event
from fedrag.dp.noise import Entropy, gaussian, poisson_sample
from fedrag.errors import ConfigError
from fedrag.passes.threads import RunJobs
from fedrag.training.optimizer import Progress
from fedrag.training.result import OnStep
from fedrag.training.unit_gradients import Gradient, UnitGradients

E = TypeVar("E")

_WAITING = 4  # sums that are kept for each thread


@dataclass(frozen=True, slots=True)
class NoisedSteps:
    """What the steps of one round are.

    Attributes:
        event: Their noise multiplier z, sample rate q and number.
        clip_norm: Largest norm C of a unit's part.
        entropy: Where chance comes from.
    """

    event: Event
    clip_norm: float
    entropy: Entropy = os.urandom

    def draw(self, units: int) -> list[int]:
        """Return the units of the next step."""
        return poisson_sample(units, self.event.sample_rate, self.entropy)


def train_with_noise(
    gradients: UnitGradients[E],
    units: Sequence[Sequence[E]],
    steps: NoisedSteps,
    run: RunJobs,
    threads: int,
    progress: Progress,
    on_step: OnStep | None,
) -> None:
    """Take the noised steps of one round.

    Args:
        gradients: Computes the clipped gradients of units.
        units: The examples of each unit; a unit may have none.
        steps: How many steps, with which noise.
        run: Runs jobs in threads.
        threads: How many run at a time.
        progress: The part of the whole training that this round is.
        on_step: Called after each step with (steps done, steps in all, nan): a loss would not be covered by the noise.

    Raises:
        ConfigError: There is no unit.
        TrainingDiverged: The noised gradient is not finite.
    """
    if not units:
        raise ConfigError("there is nothing to learn from")
    optimizer, event = gradients.optimizer, steps.event
    expected = event.sample_rate * len(units)
    for step in range(event.steps):
        total = [torch.zeros_like(master) for master in optimizer.masters]
        jobs = gradients.jobs([units[row] for row in steps.draw(len(units)) if units[row]])
        for start in range(0, len(jobs), _WAITING * threads):
            some = jobs[start : start + _WAITING * threads]
            for part in run(partial(gradients.clipped_sum, job, steps.clip_norm) for job in some):
                torch._foreach_add_(total, part)
        _add_noise(total, event.noise_multiplier * steps.clip_norm, steps.entropy)
        torch._foreach_div_(total, expected)
        optimizer.add(total)
        optimizer.step(progress.at(step, event.steps))
        if on_step:
            on_step(step + 1, event.steps, math.nan)


def _add_noise(total: Gradient, deviation: float, entropy: Entropy) -> None:
    """Add noise to a sum; in float64 first, so that it is rounded once, with the sum."""
    for part in total:
        noise = torch.from_numpy(gaussian(part.numel(), deviation, entropy)).view_as(part).to(part.device)
        part.copy_(part.double() + noise)
