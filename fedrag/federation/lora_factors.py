"""Which tensors of an adapter the sites train in a round: both factors, or one of them while the other is frozen.

The mean of products is that of factors where all sites hold the same frozen one: `sum p_i B_i A = (sum p_i B_i) A`.
"""

from __future__ import annotations

from typing import Literal

from fedrag.config.averaging_settings import RuleName
from fedrag.federation.lora_error import lora_pairs
from fedrag.federation.update import manifest_of
from fedrag.types import Tensors

Factor = Literal["", "A", "B"]
SIDE = ".lora_side_"
"""Part of the names of a side adapter's tensors; see `fedrag.models.side_adapter`."""


def frozen_factor(rule: RuleName, past_rounds: int) -> Factor:
    """Return the factor that is frozen in a component's next round; "": none.

    FFA-LoRA (Sun et al. 2024) freezes A. RoLoRA (Chen et al. 2025) trains B in odd rounds and A in even ones; B begins
    as zero, so A would have no gradient in the first.

    >>> [frozen_factor("rolora", past) for past in range(3)]
    ['A', 'B', 'A']
    """
    if rule == "ffa":
        return "A"
    if rule == "rolora":
        return "A" if past_rounds % 2 == 0 else "B"
    return ""


def trained_part(tensors: Tensors, frozen: Factor) -> Tensors:
    """Return the tensors that the sites train, in their order; a side adapter is never trained.

    >>> list(trained_part({"q.lora_A.weight": None, "q.lora_B.weight": None}, "A"))
    ['q.lora_B.weight']
    """
    fixed = (SIDE, f".lora_{frozen}.") if frozen else (SIDE,)
    return {name: tensor for name, tensor in tensors.items() if not any(mark in name for mark in fixed)}


def cut_to_rank(tensors: Tensors, rank: int) -> Tensors:
    """Return factors without the columns of B and the rows of A beyond a rank: they are zero, and learn nothing.

    The gradient of either is a product with the other. Of factors that `svd` made the best part of the rank is left,
    for they stand in the order of their singular values. Experts and what is no pair of factors stay whole.

    >>> import numpy as np
    >>> adapter = {"q.lora_A.weight": np.ones((2, 3), np.float32), "q.lora_B.weight": np.ones((1, 2), np.float32)}
    >>> cut = cut_to_rank(adapter, 1)
    >>> cut["q.lora_A.weight"].tolist(), cut["q.lora_B.weight"].tolist()
    ([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], [[1.0, 0.0]])
    """
    cut = dict(tensors)
    for b, a in lora_pairs(manifest_of(tensors)):
        cut[b], cut[a] = tensors[b].copy(), tensors[a].copy()
        cut[b][:, rank:] = 0.0
        cut[a][rank:] = 0.0
    return cut
