"""The gradients of units, what is protected as a whole, each clipped; many examples are read in a pass.

Each example's gradient is that of a pass over it alone, up to the rounding of the numbers: nothing is shared between
units, neither prompts that begin alike nor passages, so all that depends on a unit is its part of the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from fedrag.models.adapter_rows import AdapterRows, RowsMixed
from fedrag.training.optimizer import MasterOptimizer

E = TypeVar("E")

Gradient = list[torch.Tensor]
"""A sum of gradients of units, a tensor for each trained parameter, in float32."""

_NUMBERS = 2**25  # of all gradients of a pass's rows: 128 MiB, and as much again for those of their units
_ROUNDING = 1e-6  # by which a clipped norm in float32 may be too large


@dataclass(frozen=True, slots=True)
class UnitGradients(Generic[E]):
    """Computes clipped sums of gradients.

    Attributes:
        optimizer: Holds the trained parameters.
        loss_of: The sum of the losses of some examples, read in one pass; the loss of each depends on its row alone.
        rows: Tells the gradients of the rows apart; None: an example a pass.
        tokens_of: Tokens of an example, by which passes are planned.
        most_tokens: Tokens of a pass, padding included.
    """

    optimizer: MasterOptimizer
    loss_of: Callable[[Sequence[E]], torch.Tensor]
    rows: AdapterRows | None
    tokens_of: Callable[[E], int]
    most_tokens: int

    def ready(self) -> AbstractContextManager[None]:
        """Return a context in which gradients can be computed, in several threads at a time."""
        return self.rows.told_apart() if self.rows else nullcontext()

    def jobs(self, units: Sequence[Sequence[E]]) -> list[list[Sequence[E]]]:
        """Return the units of each job: as many as fit into a pass, or one that needs several."""
        sizes = [[self.tokens_of(example) for example in unit] for unit in units]
        plan = plan_units(sizes, self.most_tokens, self._most_rows)
        return [[units[number] for number in numbers] for numbers in plan]

    def clipped_sum(self, units: Sequence[Sequence[E]], clip_norm: float) -> Gradient:
        """Return the sum of the gradients of units: each the mean of its examples', scaled down to the clip norm.

        A unit whose gradient is not finite adds nothing: an error would tell of it.
        """
        examples = [(number, example) for number, unit in enumerate(units) for example in unit]
        total = [master.new_zeros(len(units), *master.shape) for master in self.optimizer.masters]
        for part in self._passes(examples):
            owners = torch.tensor([number for number, _ in part], device=total[0].device)
            shares = torch.tensor([1.0 / len(units[number]) for number, _ in part], device=total[0].device)
            for own, gradient in zip(total, self.of_examples([example for _, example in part]), strict=True):
                own.index_add_(0, owners, gradient * shares.view(-1, *[1] * (gradient.ndim - 1)))
        return sum_clipped(total, clip_norm)

    def of_examples(self, examples: Sequence[E]) -> Gradient:
        """Return the gradients of examples (examples, *shape), a tensor for each trained parameter, in float32."""
        if self.rows is None or len(examples) == 1:
            return _stacked([self._alone(example) for example in examples])
        try:
            found = self.rows.gradients(len(examples), lambda: self.loss_of(examples))
        except RowsMixed:
            half = len(examples) // 2
            halves = self.of_examples(examples[:half]), self.of_examples(examples[half:])
            return [torch.cat(parts) for parts in zip(*halves, strict=True)]
        return [gradient.float() for gradient in found]

    def _alone(self, example: E) -> Gradient:
        found = self.optimizer.gradients(self.loss_of([example]))
        return [
            torch.zeros_like(master) if gradient is None else gradient.float()
            for master, gradient in zip(self.optimizer.masters, found, strict=True)
        ]

    @property
    def _most_rows(self) -> int:
        return max(1, _NUMBERS // max(1, sum(master.numel() for master in self.optimizer.masters)))

    def _passes(self, examples: Sequence[tuple[int, E]]) -> Iterator[list[tuple[int, E]]]:
        """Yield the examples of each pass, with the numbers of their units."""
        plan = plan_units([[self.tokens_of(example)] for _, example in examples], self.most_tokens, self._most_rows)
        for rows in plan:
            yield [examples[row] for row in rows]


def plan_units(sizes: Sequence[Sequence[int]], most_tokens: int, most_rows: int) -> list[list[int]]:
    """Group units of similar length so that the padded examples of a group fit into a pass; a unit is never split.

    >>> plan_units([[3], [9, 4], [4], [8]], 18, 64)
    [[1], [3, 2], [0]]

    Args:
        sizes: Tokens of each example of each unit.
        most_tokens: Tokens of a pass, padding included.
        most_rows: Examples of a pass.
    """
    longest = [max(own, default=0) for own in sizes]
    plan: list[list[int]] = []
    rows = 0
    for unit in sorted(range(len(sizes)), key=lambda unit: -longest[unit]):
        rows += len(sizes[unit])
        if plan and rows <= most_rows and longest[plan[-1][0]] * rows <= most_tokens:
            plan[-1].append(unit)
        else:
            plan.append([unit])
            rows = len(sizes[unit])
    return plan


def sum_clipped(gradients: Gradient, clip_norm: float) -> Gradient:
    """Return the sum of gradients (units, *shape), each scaled down to a norm; one that is not finite counts as zero.

    The norm of a gradient is that over all its tensors.
    """
    norms = gradient_norms(gradients)
    finite = torch.isfinite(norms)
    factors = torch.where(finite, (clip_norm / norms * (1.0 - _ROUNDING)).clamp(max=1.0), 0.0)
    kept = [torch.where(finite.view(-1, *[1] * (part.ndim - 1)), part, 0.0) for part in gradients]
    return [torch.tensordot(factors.to(part.dtype), part, dims=1) for part in kept]


def gradient_norms(gradients: Gradient) -> torch.Tensor:
    """Return the L2 norms (units,) of gradients (units, *shape) over all tensors, added up in float64."""
    squares = [part.flatten(1).double().square().sum(dim=1) for part in gradients]
    return torch.stack(squares).sum(dim=0).sqrt()


def _stacked(gradients: Sequence[Gradient]) -> Gradient:
    return [torch.stack(parts) for parts in zip(*gradients, strict=True)]
