"""A second adapter beside the one that is trained: what averaged factors leave out of the averaged products.

FedEx-LoRA (Singhal et al. 2024) adds this residual to the base weights. Here it stays low-rank beside them, in the
scale of the adapter: a base in 4 bits cannot take it up, and one in bfloat16 would lose most of it. PEFT adds and
merges it as it does any active adapter.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from peft.tuners.lora.layer import LoraLayer
from torch import nn

from fedrag.config.training_settings import LoraSection
from fedrag.federation.lora_factors import SIDE
from fedrag.types import Array, Tensors

_TRAINED, _SIDE = "default", "side"


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
