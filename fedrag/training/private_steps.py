"""DP-SGD (Abadi et al. 2016): steps to which each question gives a bounded part, under noise that covers it.

    g = (1 / (q n)) (sum_i g_i min(1, C / |g_i|) + z C N(0, 1)),  each of the n units in the sum with probability q

g_i comes from passes over unit i alone, |g_i| is over all trained weights at once. Nothing is shared between units,
neither prompts that begin alike nor passages: all that depends on a unit is its part.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import torch

from fedrag.dp.accounting import Event
from fedrag.dp.noise import Entropy, gaussian, poisson_sample
from fedrag.errors import ConfigError
from fedrag.passes.threads import RunJobs
from fedrag.training.optimizer import MasterOptimizer, Progress
from fedrag.training.result import OnStep

E = TypeVar("E")

Gradient = list[torch.Tensor]
"""The gradient of one unit, a tensor for each trained parameter, in float32."""

_WAITING = 4  # gradients of units that are kept for each thread
_ROUNDING = 1e-6  # by which a clipped norm in float32 may be too large


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


@dataclass(frozen=True, slots=True)
class UnitGradients(Generic[E]):
    """Computes the gradients of units, one unit after the other or some at a time in threads.

    Attributes:
        optimizer: Holds the trained parameters.
        loss_of: The loss of one example of a unit; it reads that example alone.
    """

    optimizer: MasterOptimizer
    loss_of: Callable[[E], torch.Tensor]

    def of(self, unit: Sequence[E]) -> Gradient:
        """Return the mean of the gradients of a unit's examples."""
        total = [torch.zeros_like(master) for master in self.optimizer.masters]
        for example in unit:
            found = self.optimizer.gradients(self.loss_of(example))
            for own, gradient in zip(total, found, strict=True):
                if gradient is not None:
                    own.add_(gradient.float(), alpha=1.0 / len(unit))
        return total

    def clipped(self, unit: Sequence[E], clip_norm: float) -> Gradient:
        """Return the gradient of a unit, scaled down to the clip norm if it is longer; zero if it is not finite."""
        return clip(self.of(unit), clip_norm)


def clip(gradient: Gradient, clip_norm: float) -> Gradient:
    """Scale a gradient down to a norm; one that is not finite becomes zero, since an error would tell of the unit."""
    norm = gradient_norm(gradient)
    if not math.isfinite(norm):
        return [torch.zeros_like(part) for part in gradient]
    factor = min(1.0, clip_norm / norm * (1.0 - _ROUNDING)) if norm else 1.0
    return [part * factor for part in gradient]


def gradient_norm(gradient: Gradient) -> float:
    """Return the L2 norm over all tensors of a gradient, added up in float64."""
    return math.sqrt(sum(float(part.double().square().sum()) for part in gradient))


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
        gradients: Computes the gradient of a unit.
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
        drawn = [units[row] for row in steps.draw(len(units)) if units[row]]
        for start in range(0, len(drawn), _WAITING * threads):
            jobs = [
                partial(gradients.clipped, unit, steps.clip_norm) for unit in drawn[start : start + _WAITING * threads]
            ]
            for part in run(jobs):
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
