"""The result of training a component for one round."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fedrag.types import Tensors

OnStep = Callable[[int, int, float], None]
"""Called after each step with (steps done, steps in all, loss)."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The update of one component, and figures on its training.

    Attributes:
        update: New minus received weights, by name.
        loss: Mean over the steps; nan: untold, since it would say more of a question than noise covers.
        last_loss: Mean over the last tenth of the steps; nan: untold.
        steps: Optimizer steps taken.
        tokens: Tokens read; 0: not counted.
        temperatures: The scale or temperature that each loss used, by its name; they depend on the base model alone.
        questions: Distinct questions that had a part in the loss; None: all that were prepared.
    """

    update: Tensors
    loss: float
    last_loss: float
    steps: int
    tokens: int = 0
    temperatures: Mapping[str, float] = field(default_factory=dict)
    questions: int | None = None

    @property
    def is_untold(self) -> bool:
        """Whether it holds no figure that is computed from questions without noise."""
        return math.isnan(self.loss)

    @classmethod
    def of(
        cls,
        update: Tensors,
        losses: Sequence[float],
        tokens: int = 0,
        temperatures: Mapping[str, float] | None = None,
        questions: int | None = None,
    ) -> TrainingResult:
        """Return the result of steps with these losses."""
        tail = losses[-max(1, len(losses) // 10) :]
        means = sum(losses) / len(losses), sum(tail) / len(tail)
        return cls(update, *means, len(losses), tokens, temperatures or {}, questions)

    @classmethod
    def untold(cls, update: Tensors, steps: int, temperatures: Mapping[str, float] | None = None) -> TrainingResult:
        """Return the result of steps with noise: no figure that is computed from questions without it."""
        return cls(update, math.nan, math.nan, steps, 0, temperatures or {})
