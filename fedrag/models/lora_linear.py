"""A linear layer that adds its adapter's output in place.

y = W x + s B (A x): the thin product B (.) is accumulated into W x. Computed separately, scaled and added, it would be
written and read three times at the full width of the layer, which costs as much as all arithmetic of the adapter.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import nn


class LoraLinear(Linear):  # type: ignore[misc]  # peft ships no types
    """PEFT's layer with a faster forward pass; unusual cases (merged, mixed number formats) use PEFT's own."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the layer's output (..., out) for x (..., in)."""
        factors = [(self.lora_A[name].weight, self.lora_B[name].weight) for name in self.active_adapters]
        unusual = args or kwargs or self.merged or any(not x.dtype == a.dtype == b.dtype for a, b in factors)
        if self.disable_adapters or unusual:
            out: torch.Tensor = super().forward(x, *args, **kwargs)
            return out
        rows = x.reshape(
            -1, x.shape[-1]
        )  # flat from the start: for a view of the result autograd would copy the gradient
        result: torch.Tensor = self.base_layer(rows)
        for name, (down, up) in zip(self.active_adapters, factors, strict=True):
            thin = nn.functional.linear(rows, down) * self.scaling[name]
            result = result.addmm_(thin, up.t())
        return result.view(*x.shape[:-1], -1)


def accumulate_in_place(model: nn.Module) -> None:
    """Let the adapted linear layers of a model compute as `LoraLinear`."""
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = LoraLinear
