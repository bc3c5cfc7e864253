"""A linear layer with an adapter, without the passes over its output that adding the adapter's part takes.

y = W x + s B (A x): the thin product B (.) is accumulated into W x in place. Computed apart, scaled and added, it is
written and read three times at the full width of the layer, which costs as much as all the adapter's arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import nn


class LoraLinear(Linear):  # type: ignore[misc]  # peft ships no types
    """PEFT's layer with another forward pass; what is unusual (merged, mixed number formats) stays PEFT's."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the layer's output (..., out) for x (..., in)."""
        [name] = self.active_adapters
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        unusual = args or kwargs or self.merged or not x.dtype == down.dtype == up.dtype
        if self.disable_adapters or unusual:
            out: torch.Tensor = super().forward(x, *args, **kwargs)
            return out
        rows = x.reshape(-1, x.shape[-1])  # rather than a view of the result: autograd would copy its gradient
        thin = nn.functional.linear(rows, down) * self.scaling[name]
        result: torch.Tensor = self.base_layer(rows).addmm_(thin, up.t())
        return result.view(*x.shape[:-1], -1)


def accumulate_in_place(model: nn.Module) -> None:
    """Let the adapted linear layers of a model compute as `LoraLinear`."""
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = LoraLinear
