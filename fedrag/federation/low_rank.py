"""The mean of the products of LoRA factors, in as few columns as it has, and its best approximation of a lower rank.

With Bs = [p_1 B_1, p_2 B_2, ...] and As = [A_1; A_2; ...] of all sites, `sum_i p_i B_i A_i = Bs As`. With the QR
decompositions Bs = Q_B R_B and As^T = Q_A R_A, the small product R_B R_A^T has the same singular values: d x n is never
formed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


def stacked_sum(shares: Sequence[float], bs: Sequence[Matrix], as_: Sequence[Matrix]) -> tuple[Matrix, Matrix]:
    """Return factors (d, R) and (R, n) of `sum_i shares_i B_i A_i`, one beside the other; ranks may differ."""
    return np.concatenate([share * b for share, b in zip(shares, bs, strict=True)], axis=1), np.concatenate(as_, axis=0)


def product_norm(b: Matrix, a: Matrix) -> float:
    """Return the Frobenius norm of `b a`."""
    return float(np.linalg.norm(triangle(b) @ triangle(a.T).T))


def triangle(matrix: Matrix) -> Matrix:
    """Return R of the QR decomposition."""
    return np.asarray(np.linalg.qr(matrix, mode="r"))


def best_of_rank(b: Matrix, a: Matrix, rank: int) -> tuple[Matrix, Matrix]:
    """Return factors (d, rank) and (rank, n) of the product of this rank that is nearest to `b a` (Eckart and Young).

    As in FlexLoRA (Bai et al. 2024), B holds the singular values and A has orthonormal rows. Each row of A has its
    largest entry above 0, so that the same product gives the same factors.

    Args:
        b: (d, R).
        a: (R, n).
        rank: At most R.
    """
    q_b, r_b = np.linalg.qr(b)
    q_a, r_a = np.linalg.qr(a.T)
    left, values, right = np.linalg.svd(r_b @ r_a.T, full_matrices=False)
    kept = min(rank, len(values))
    new_b, new_a = (q_b @ left[:, :kept]) * values[:kept], right[:kept] @ q_a.T
    signs = np.sign(new_a[np.arange(kept), np.abs(new_a).argmax(axis=1)])
    return new_b * signs, new_a * signs[:, None]
