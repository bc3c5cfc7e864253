"""A KV cache whose memory has room for the tokens to come.

The cache of transformers is copied whole into new memory at each step. With 32 prompts of 270 tokens that took more
than half of the step.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class RoomyCache(DynamicCache):
    """The cache of a model that keeps all tokens, for greedy decoding: its rows stay the same.

    Args:
        tokens: Tokens for which a layer has room; more are kept too, in new memory at each step.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.layer_class_to_replicate = partial(_RoomyLayer, tokens)  # type: ignore[assignment]  # it is only called


class _RoomyLayer(DynamicLayer):
    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers gives it no types
        self._tokens = tokens

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Reserve memory for keys and values of the shape of the first ones (rows, heads, tokens, dim)."""
        super().lazy_initialization(key_states, value_states)
        self._memory = [
            first.new_empty(*first.shape[:2], self._tokens, first.shape[3]) for first in (key_states, value_states)
        ]
        self.keys, self.values = (part[:, :, :0] for part in self._memory)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add keys and values of new tokens; return those of all tokens, views of the layer's memory."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.keys.shape[2]
        stop = start + key_states.shape[2]
        if stop > self._tokens:
            return super().update(key_states, value_states)
        for part, new in zip(self._memory, (key_states, value_states), strict=True):
            part[:, :, start:stop] = new
        self.keys, self.values = (part[:, :, :stop] for part in self._memory)
        return self.keys, self.values
