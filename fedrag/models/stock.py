"""A model as the stock library computes it, for comparison: its own attention, PEFT's own layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel

from fedrag.models.adapters import stock_layers
from fedrag.models.attention import uses_cpu_attention


@contextmanager
def computing_as_stock(model: nn.Module) -> Iterator[None]:
    """Let a model compute as it would without fedrag: the library's attention, and PEFT's own adapted layers."""
    changed = [
        (module, module.config._attn_implementation)
        for module in model.modules()
        if isinstance(module, PreTrainedModel) and uses_cpu_attention(module)
    ]
    for module, _ in changed:
        module.set_attn_implementation("sdpa")
    try:
        with stock_layers(model):
            yield
    finally:
        for module, name in changed:
            module.set_attn_implementation(name)
