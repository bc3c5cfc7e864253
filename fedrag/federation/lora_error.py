"""How far the average of LoRA factors is from the average of their products.

Averaging A and B over sites is not averaging B A. With weight shares p_i and means Abar, Bbar,

    sum_i p_i B_i A_i - Bbar Abar = sum_i p_i (B_i - Bbar)(A_i - Abar)

and the aggregation error is the Frobenius norm of this over that of `sum_i p_i B_i A_i`, all adapted layers
together. The d x n products are never formed. PEFT's scale is the same for all and cancels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedrag.federation.low_rank import triangle
from fedrag.federation.update import Manifest, manifest_of
from fedrag.seeding import derive_seed
from fedrag.types import Tensors

Matrix = npt.NDArray[np.float64]

COLUMNS = 32
DECIMALS = 9  # beyond lies rounding, which depends on the order of arrival


def lora_pairs(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """Return the names of the factors (B, A) of each adapted linear layer.

    Experts are left out: their factors are stacked, of each expert's rows in the one and interleaved in the other.

    >>> lora_pairs(manifest_of({"q.lora_A.weight": np.ones((2, 8)), "q.lora_B.weight": np.ones((4, 2))}))
    (('q.lora_B.weight', 'q.lora_A.weight'),)
    """
    matrices = {spec.name for spec in manifest.specs if len(spec.shape) == 2 and "expert" not in spec.name}
    pairs = ((name.replace("lora_A", "lora_B"), name) for name in matrices if "lora_A" in name)
    return tuple(sorted((b, a) for b, a in pairs if b in matrices))


class AggregationError:
    """The aggregation error of a round, estimated in memory that does not grow with the number of sites.

    Each product is kept as the sketch `B (A Omega)` with a Gaussian Omega of 32 columns; its expected squared
    norm is 32 times that of `B A`. The estimate is good to some ten per cent on one layer, better on many.
    The Omega of a layer is a window of one matrix twice as high as the widest layer, at a place of its own: drawing
    one for each layer and site took longer than all else that the server does with a reply.

    Args:
        manifest: Names and shapes of the component.
        seed: Seed of the sketch.
    """

    def __init__(self, manifest: Manifest, seed: int) -> None:
        self._pairs = lora_pairs(manifest)
        shapes = {spec.name: spec.shape for spec in manifest.specs}
        self._sums = {b: np.zeros((shapes[b][0], COLUMNS)) for b, _ in self._pairs}
        self._work = np.empty((max((len(total) for total in self._sums.values()), default=0), COLUMNS))
        widest = max((shapes[a][1] for _, a in self._pairs), default=0)
        pool = np.random.default_rng(seed).standard_normal((2 * widest, COLUMNS))
        self._omegas = {a: _window(pool, shapes[a][1], derive_seed(seed, a)) for _, a in self._pairs}
        self._weight_sum = 0

    def add(self, received: Tensors, difference: Tensors, weight: int) -> None:
        """Fold in one site's full factors: what it received plus its difference, which a frozen factor has not."""
        for b, a in self._pairs:
            sketch = weight * (_moved(received, difference, a) @ self._omegas[a])
            work = self._work[: len(self._sums[b])]
            np.matmul(_moved(received, difference, b), sketch, out=work)
            self._sums[b] += work
        self._weight_sum += weight

    def result(self, mean: Tensors) -> float | None:
        """Compare with the mean factors: what the sites received plus the mean difference.

        Returns:
            The ratio, 0.0 where the mean is exact; None without LoRA pairs or sites.
        """
        if not self._pairs or self._weight_sum == 0:
            return None
        exact = {b: total / self._weight_sum for b, total in self._sums.items()}
        error = _frobenius(
            [exact[b] - _float64(mean, b) @ (_float64(mean, a) @ self._omegas[a]) for b, a in self._pairs]
        )
        return _ratio(error, _frobenius(list(exact.values())))


def _window(pool: Matrix, rows: int, seed: int) -> Matrix:
    """Return so many neighbouring rows, from a place that the seed decides."""
    start = seed % (len(pool) - rows + 1)
    return pool[start : start + rows]


def exact_aggregation_error(sites: Sequence[Tensors], weights: Sequence[int]) -> float | None:
    """Return the aggregation error of few sites exactly, from their full factors.

    With the factors of all sites stacked, `sum_i p_i B_i A_i = Bs As`. Of the QR decompositions of Bs and
    As^T the triangles are enough, since `||Bs As|| = ||R_B R_A^T||`.

    Returns:
        The ratio; None without LoRA pairs.
    """
    shares = np.asarray(weights, dtype=np.float64) / sum(weights)
    errors, totals = [], []
    for b, a in lora_pairs(manifest_of(sites[0])):
        bs = np.stack([_float64(tensors, b) for tensors in sites])
        as_ = np.stack([_float64(tensors, a) for tensors in sites])
        totals.append(_core_of_sum(shares, bs, as_))
        b_mean, a_mean = np.tensordot(shares, bs, axes=1), np.tensordot(shares, as_, axes=1)
        errors.append(_core_of_sum(shares, bs - b_mean, as_ - a_mean))
    return _ratio(_frobenius(errors), _frobenius(totals)) if totals else None


def _core_of_sum(shares: Matrix, bs: Matrix, as_: Matrix) -> Matrix:
    """Return a small matrix with the norm of `sum_i p_i B_i A_i`; bs `(sites, d, r)`, as_ `(sites, r, n)`."""
    stacked_b = np.concatenate(list(shares[:, None, None] * bs), axis=1)
    stacked_a = np.concatenate(list(as_), axis=0)
    return triangle(stacked_b) @ triangle(stacked_a.T).T


def _float64(tensors: Tensors, name: str) -> Matrix:
    return tensors[name].astype(np.float64)


def _moved(received: Tensors, difference: Tensors, name: str) -> Matrix:
    """Return a factor as a site has it now."""
    return (received[name] + difference[name] if name in difference else received[name]).astype(np.float64)


def _frobenius(matrices: Sequence[Matrix]) -> float:
    return math.sqrt(sum(float(np.square(matrix).sum()) for matrix in matrices))


def _ratio(error: float, total: float) -> float:
    return round(error / total, DECIMALS) if total > 0 else 0.0
