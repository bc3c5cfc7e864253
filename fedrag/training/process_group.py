"""Training steps that several processes take together, each on its share of every batch (data parallelism).

Every process holds the same weights and knows the whole batch. For the generator each reads its share of the examples;
their losses are divided by the answer tokens of the whole batch, so that the gradients add up to those of the batch.
For the retriever each encodes its share of the texts and is handed the vectors of all others, so that a question has
the negatives of the whole batch; each computes the whole loss, whose gradient flows through its own vectors alone, and
these gradients add up too. So a step is that of one process, up to the rounding of sums in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Group:
    """The processes that train together, seen from one of them.

    Attributes:
        rank: Number of this process; 0 is the one that the others help.
        size: How many they are; 1: this one trains alone, and nothing is sent.
    """

    rank: int = 0
    size: int = 1

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's share; neighbours stay together, as questions on the same passage are.

        >>> [list(Group(rank, 3).share("abcd")) for rank in range(3)]
        [['a'], ['b'], ['c', 'd']]
        """
        return items[len(items) * self.rank // self.size : len(items) * (self.rank + 1) // self.size]

    def embed(self, embed: Callable[[Sequence[str]], torch.Tensor], texts: Sequence[str]) -> torch.Tensor:
        """Return the vectors (texts, dim) of all texts, of which each process embeds its share.

        Args:
            embed: Returns the vectors of some texts, at least one.
            texts: The same in every process, at least one.

        Returns:
            The same values in every process; gradients flow through this process's own rows.
        """
        return embed(texts) if self.size == 1 else self.gathered(embed(self.own_texts(texts)), len(texts))

    def own_texts(self, texts: Sequence[str]) -> Sequence[str]:
        """Return this process's share of texts, or the first of them where it has none: it still needs a graph."""
        return self.share(texts) or texts[:1]

    def gathered(self, own: torch.Tensor, count: int) -> torch.Tensor:
        """Return the vectors (count, dim) of all texts, given those of `own_texts`.

        Args:
            own: The vectors of this process's texts.
            count: How many texts there are.

        Returns:
            The same values in every process; gradients flow through this process's own rows.
        """
        if self.size == 1:
            return own
        shares = [len(Group(rank, self.size).share(range(count))) for rank in range(self.size)]
        own = own[: shares[self.rank]]
        padded = torch.zeros(max(shares), own.shape[1], device=own.device)  # gloo gathers equal shapes
        padded[: len(own)] = own.detach().float()
        gathered = [torch.empty_like(padded) for _ in shares]
        dist.all_gather(gathered, padded)
        rows = [part[:count].to(own.dtype) for part, count in zip(gathered, shares, strict=True)]
        rows[self.rank] = own
        return torch.cat(rows)

    def add_up(self, masters: Sequence[nn.Parameter], loss: float = 0.0) -> float:
        """Replace the gradients of weights by their sums over all processes; return the sum of the losses.

        A weight that has no gradient in any process keeps none: the optimizer leaves it alone.

        Raises:
            RuntimeError: Another process has ended.
        """
        if self.size == 1:
            return loss
        told = torch.tensor([loss, *(float(master.grad is not None) for master in masters)], dtype=torch.float64)
        dist.all_reduce(told)  # in the processor's memory, where the end of another process shows at once
        some = [master for master, count in zip(masters, told[1:].tolist(), strict=True) if count]
        if some:
            flat = torch.cat([(m.grad if m.grad is not None else torch.zeros_like(m)).flatten() for m in some])
            dist.all_reduce(flat)
            for master, total in zip(some, torch.split(flat, [master.numel() for master in some]), strict=True):
                master.grad = total.view_as(master)
        return float(told[0])


ALONE = Group()
"""One process that trains alone."""
