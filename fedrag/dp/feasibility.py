"""What an epsilon costs at a number of questions, before anything is trained, and what makes the best of it.

    noise over signal = z sqrt(d) / (q n)

z is the noise multiplier, d the number of trained weights, q n the expected number of questions in a step: the norm of
a step's noise over the most that the clipped gradients can add up to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fedrag.dp.accounting import noise_for, usual_delta

MANY = 2_000
"""Questions to compare with: from about there on, noise and signal can be equal."""
FEW_STEPS = 20
"""Steps in all that are enough to learn something from all questions at once."""
SMALL_ADAPTER = 100_000
"""Weights of a small adapter, where it is not known what will be trained."""


@dataclass(frozen=True, slots=True)
class NoisePlan:
    """Noised training of one component.

    Attributes:
        epsilon: What it may spend, with all others of the run.
        steps: Steps of all components of the run.
        weights: Trained weights of the component.
        sample_rate: Chance of each question to be in a step.
        delta: The chance with which epsilon may not hold; None: one in ten times the questions.
    """

    epsilon: float
    steps: int
    weights: int
    sample_rate: float = 1.0
    delta: float | None = None

    def ratio(self, units: int) -> float:
        """Return noise over signal of a step at a site with so many questions or subjects."""
        delta = usual_delta(units) if self.delta is None else self.delta
        noise = noise_for(self.epsilon, delta, self.sample_rate, self.steps)
        return noise * math.sqrt(self.weights) / (self.sample_rate * max(1, units))


def ratio_text(ratio: float) -> str:
    """Return noise over signal in words.

    >>> ratio_text(3.56), ratio_text(0.362), ratio_text(34.6)
    ('3.6 times the signal', '0.36 times the signal', '35 times the signal')
    """
    return f"{ratio:.2g} times the signal" if ratio < 100 else f"{ratio:,.0f} times the signal"


def cost_text(plan: NoisePlan, units: int, word: str = "question") -> str:
    """Return what epsilon costs at a site, and what it would with many more questions or subjects."""
    told = f"at {units:,} {word}s epsilon {plan.epsilon:g} means noise {ratio_text(plan.ratio(units))}"
    if units >= MANY:
        return told
    return f"{told}; with {MANY:,} it would be {ratio_text(plan.ratio(MANY))}"


def best_plan(plan: NoisePlan, rank: int, trainings: int, units: int) -> tuple[NoisePlan, int]:
    """Return the plan that makes the best of an epsilon, and the rank of its adapter.

    All questions in each step, few steps, and the largest rank up to the present one at which the noise is no more than
    the signal: at rank 1 it may still be more.

    Args:
        plan: The present plan.
        rank: Rank of its adapter.
        trainings: How often a component is trained in the run: each takes a step at least.
        units: Questions or subjects of the site.
    """
    best = replace(plan, sample_rate=1.0, steps=max(trainings, min(plan.steps, FEW_STEPS)))
    ranks = [rank, *(power for power in (16, 8, 4, 2, 1) if power < rank)]
    for smaller in ranks:
        found = replace(best, weights=max(1, plan.weights * smaller // rank))
        if found.ratio(units) <= 1.0:
            return found, smaller
    return replace(best, weights=max(1, plan.weights // rank)), 1
