"""The result of training a component for one round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedrag.types import Tensors

OnStep = Callable[[int, int, float], None]
"""Called after each step with (steps done, steps in all, loss)."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The update of one component, and figures on its training.

    Attributes:
        update: New minus received weights, by name.
        loss: Mean over the steps.
        last_loss: Mean over the last tenth of the steps.
        steps: Optimizer steps taken.
        tokens: Tokens read; 0: not counted.
    """

    update: Tensors
    loss: float
    last_loss: float
    steps: int
    tokens: int = 0

    @classmethod
    def of(cls, update: Tensors, losses: Sequence[float], tokens: int = 0) -> TrainingResult:
        """Return the result of steps with these losses."""
        tail = losses[-max(1, len(losses) // 10) :]
        return cls(update, sum(losses) / len(losses), sum(tail) / len(tail), len(losses), tokens)
