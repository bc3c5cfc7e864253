"""Rules that average the products of LoRA factors instead of the factors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedrag.federation.aggregation import Combine, weighted_sum
from fedrag.federation.lora_error import lora_pairs
from fedrag.federation.lora_factors import SIDE
from fedrag.federation.low_rank import best_of_rank, product_norm, stacked_sum
from fedrag.federation.update import Manifest, flatten, unflatten
from fedrag.types import Array, Tensors

Matrix = npt.NDArray[np.float64]
PRECISION = 1e-7


def best_factors(state: Tensors, manifest: Manifest) -> Combine:
    """Return the rule `svd`: factors of the product nearest to the mean of the sites' products (FlexLoRA).

    Tensors that are no pair of factors, such as those of experts, are averaged.

    Args:
        state: The tensors that the sites received.
        manifest: Their names and shapes.
    """

    def combine(flats: list[Array], weights: list[int]) -> Array:
        shares = np.asarray(weights, dtype=np.float64) / sum(weights)
        result = dict(unflatten(weighted_sum(flats, shares), manifest))
        differences = [unflatten(flat, manifest) for flat in flats]
        for b, a in lora_pairs(manifest):
            now = [(_moved(state[b], one[b]), _moved(state[a], one[a])) for one in differences]
            rank = state[a].shape[0]
            new_b, new_a = best_of_rank(*stacked_sum(list(shares), *zip(*now, strict=True)), rank)
            result[b] = _change(new_b, state[b])
            result[a] = _change(new_a, state[a])
        return flatten(result, manifest)

    return combine


class SideAdapter:
    """The rule `exact`: what the mean of the products holds beyond the product of the mean factors (FedEx-LoRA).

    It is added to the side adapter that the sites received, whose rank grows by up to (sites - 1) * rank a round, at
    most to the smaller side of the layer. The updates of a round are kept until all are there.

    Args:
        state: The tensors that the sites received, a side adapter among them or not.
        manifest: Names and shapes of those that they trained.
    """

    def __init__(self, state: Tensors, manifest: Manifest) -> None:
        self._state = state
        self._pairs = lora_pairs(manifest)
        self._updates: dict[str, tuple[Tensors, int]] = {}

    def add(self, difference: Tensors, weight: int, site: str) -> None:
        """Keep one site's difference."""
        self._updates[site] = difference, weight

    def result(self, mean: Tensors) -> Tensors:
        """Return the new side adapter, given the mean difference that moves the factors."""
        side: Tensors = {}
        updates = [update for _, update in sorted(self._updates.items())]
        total = sum(weight for _, weight in updates)
        shares = [weight / total for _, weight in updates]
        for b, a in self._pairs:
            new_b, new_a = (_float64(self._state[name] + mean[name]) for name in (b, a))
            bs = [_moved(self._state[b], one[b]) for one, _ in updates]
            as_ = [_moved(self._state[a], one[a]) for one, _ in updates]
            before = [name.replace(".lora_", SIDE) for name in (b, a)]
            if before[0] in self._state:
                bs.append(_float64(self._state[before[0]]))
                as_.append(_float64(self._state[before[1]]))
            missing = stacked_sum([*shares, *[1.0] * (len(bs) - len(shares)), -1.0], [*bs, new_b], [*as_, new_a])
            found = _to_float32(*missing, smallest=PRECISION * product_norm(new_b, new_a))
            if found is not None:
                side[before[0]], side[before[1]] = found
        return side


def _to_float32(b: Matrix, a: Matrix, smallest: float) -> tuple[Array, Array] | None:
    """Return factors of a product without singular values that a float32 product could not hold; None: none is left."""
    b, a = best_of_rank(b, a, b.shape[1])
    kept = np.linalg.norm(b, axis=0) > smallest
    return (b[:, kept].astype(np.float32), a[kept].astype(np.float32)) if kept.any() else None


def _float64(tensor: Array) -> Matrix:
    return tensor.astype(np.float64)


def _moved(received: Array, difference: Array) -> Matrix:
    return received.astype(np.float64) + difference


def _change(new: Matrix, received: Array) -> Array:
    """Return the difference to a new factor; of a layer narrower than the rank, further rows and columns stay idle.

    Idle columns of B are zero; the rows of A beside them keep what they were, so that they can still learn.
    """
    wide = np.zeros_like(new, shape=received.shape)
    if new.shape[1] == received.shape[1]:
        wide[:] = received
    wide[: new.shape[0], : new.shape[1]] = new
    return (wide - received).astype(np.float32)
