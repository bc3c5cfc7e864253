"""Which tensors of an adapter the sites train in a round: both factors, or one of them while the other is frozen.

The mean of products is that of factors where all sites hold the same frozen one: `sum p_i B_i A = (sum p_i B_i) A`.
"""

from __future__ import annotations

from typing import Literal

from fedrag.config.averaging_settings import RuleName
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
