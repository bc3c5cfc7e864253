"""Rules that average the products of LoRA factors instead of the factors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedrag.federation.aggregation import Combine, weighted_sum
from fedrag.federation.lora_error import lora_pairs
from fedrag.federation.low_rank import best_of_rank, stacked_sum
from fedrag.federation.update import Manifest, flatten, unflatten
from fedrag.types import Array, Tensors

Matrix = npt.NDArray[np.float64]


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
