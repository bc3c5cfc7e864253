"""A second adapter beside the one that is trained: what averaged factors leave out of the averaged products.

FedEx-LoRA (Singhal et al. 2024) adds this residual to the base weights. Here it stays low-rank beside them, in the
scale of the adapter: a base in 4 bits cannot take it up, and one in bfloat16 would lose most of it. PEFT adds and
merges it as it does any active adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from peft.tuners.lora.layer import LoraLayer
from torch import nn

from fedrag.config.training_settings import LoraSection
from fedrag.federation.lora_error import lora_pairs
from fedrag.federation.lora_factors import SIDE
from fedrag.federation.update import manifest_of
from fedrag.types import Array, Tensors

_TRAINED, _SIDE = "default", "side"


def belongs_beside(side: Tensors, factors: Tensors) -> bool:
    """Tell whether tensors are a side adapter of layers that an adapter has: factors B and A of a rank that fits.

    >>> factors = {"q.lora_A.weight": np.ones((2, 8)), "q.lora_B.weight": np.ones((4, 2))}
    >>> belongs_beside({"q.lora_side_A.weight": np.ones((3, 8)), "q.lora_side_B.weight": np.ones((4, 3))}, factors)
    True
    >>> belongs_beside({"q.lora_side_A.weight": np.ones((3, 8))}, factors)
    False
    """
    pairs = {tuple(name.replace(".lora_", SIDE) for name in pair): pair for pair in lora_pairs(manifest_of(factors))}
    present = [names for names in pairs if any(name in side for name in names)]
    if set(side) != {name for names in present for name in names}:
        return False
    return all(_fits([side[name] for name in names], [factors[name] for name in pairs[names]]) for names in present)


def _fits(side: Sequence[Array], factors: Sequence[Array]) -> bool:
    (b, a), (like_b, like_a) = side, factors
    if b.ndim != 2 or a.ndim != 2:
        return False
    most = min(len(like_b), like_a.shape[1])
    return len(b) == len(like_b) and a.shape[1] == like_a.shape[1] and 0 < b.shape[1] == len(a) <= most


def set_side(model: nn.Module, tensors: Tensors) -> None:
    """Give each adapted layer the side adapter that its tensors `<layer>.lora_side_A.weight` and `.._B..` hold.

    A layer without such tensors has none afterwards.
    """
    for path, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        if _SIDE in layer.lora_A:
            layer.delete_adapter(_SIDE)
        if (a := tensors.get(f"{path}{SIDE}A.weight")) is not None:
            _add(layer, a, tensors[f"{path}{SIDE}B.weight"])


def _add(layer: LoraLayer, a: Array, b: Array) -> None:
    like = layer.lora_A[_TRAINED].weight
    rank = len(a)
    for kind, tensor in ((layer.lora_A, a), (layer.lora_B, b)):
        linear = nn.Linear(tensor.shape[1], tensor.shape[0], bias=False, device="meta")
        weight = torch.from_numpy(np.ascontiguousarray(tensor)).to(like.device, like.dtype, copy=True)
        linear.weight = nn.Parameter(weight, requires_grad=False)
        kind[_SIDE] = linear
    layer.r[_SIDE], layer.lora_alpha[_SIDE] = rank, layer.scaling[_TRAINED] * rank
    layer.scaling[_SIDE] = layer.scaling[_TRAINED]
    layer.lora_dropout[_SIDE] = nn.Identity()
    layer.lora_bias[_SIDE] = False
    trains = like.requires_grad
    layer.set_adapter([_TRAINED, _SIDE])  # it lets both be trained
    for kind in (layer.lora_A, layer.lora_B):
        kind[_TRAINED].weight.requires_grad_(trains)
        kind[_SIDE].weight.requires_grad_(False)


def side_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the side adapter's parameters by name; nothing where there is none."""
    return {name: p for name, p in model.named_parameters() if ".lora_" in name and f".{_SIDE}." in name}


def joined(tensors: Tensors, lora: LoraSection) -> tuple[Tensors, LoraSection]:
    """Return adapter and side adapter as one adapter of a higher rank, and its settings, of the same scale.

    All layers get the rank of the largest: rows and columns of zeros change nothing.
    """
    sides = {name: tensor for name, tensor in tensors.items() if SIDE in name}
    if not sides:
        return tensors, lora
    widest = max(tensor.shape[0] for name, tensor in sides.items() if f"{SIDE}A." in name)
    rank = lora.rank + widest
    both = {name: _beside(name, tensor, sides, rank) for name, tensor in tensors.items() if name not in sides}
    return both, lora.model_copy(update={"rank": rank, "alpha": lora.alpha * rank / lora.rank})


def _beside(name: str, tensor: Array, sides: Mapping[str, Array], rank: int) -> Array:
    axis = 0 if ".lora_A." in name else 1
    side = sides.get(name.replace(".lora_", SIDE))
    parts = [tensor] if side is None else [tensor, side]
    idle = list(tensor.shape)
    idle[axis] = rank - sum(part.shape[axis] for part in parts)
    return np.concatenate([*parts, np.zeros(idle, np.float32)], axis=axis)
