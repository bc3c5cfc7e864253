"""The beginnings of prompts, read by the base model alone, once, and remembered.

Where an adapter acts from the question on (activated LoRA, Greenewald et al. 2025, arXiv:2504.12397), the keys and
values of instruction and passages depend on the frozen base model alone. They are the same in every pass over the
data, in every round and for every adapter, and no gradient goes through them.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, DynamicCache, PreTrainedConfig, PreTrainedModel

from fedrag.errors import ModelError
from fedrag.models.adapters import adapter_disabled

_Read = list[tuple[torch.Tensor, torch.Tensor]]  # keys and values (heads, tokens, dim) of each layer


class PrefixReader:
    """Reads prefixes with the base model and remembers what fits into its share of the memory.

    Each prefix is read in a pass of its own, so its keys and values are the same bits whatever it is batched with, and
    whether it was remembered or is read again.

    Args:
        model: A causal model.
        most_bytes: Keys and values that are kept.

    Raises:
        ModelError: The model remembers in another way than by the keys and values of all tokens.
    """

    def __init__(self, model: PreTrainedModel, most_bytes: float) -> None:
        if not remembers_all(model.config):
            raise ModelError(f"{type(model).__name__} does not keep the keys and values of all tokens")
        self._model = model
        self._most_bytes = most_bytes
        self._bytes = 0
        self._known: dict[tuple[int, ...], _Read] = {}
        self._chance = random.Random(0)

    def read(self, prefixes: Sequence[Sequence[int]]) -> tuple[DynamicCache, torch.Tensor]:
        """Return the keys and values of some prefixes, padded on the left, and which of them are real.

        Args:
            prefixes: Token ids, one row of a batch each; may be empty.

        Returns:
            A cache of (prefixes, heads, width, dim) a layer that may be changed, and a mask (prefixes, width).
        """
        rows = [self._read(tuple(prefix) or (0,)) for prefix in prefixes]
        lengths = [len(prefix) for prefix in prefixes]
        width = max(lengths)
        cache = DynamicCache()
        for layer in range(len(rows[0])):
            keys, values = (
                torch.stack([_padded(row[layer][part], n, width) for row, n in zip(rows, lengths, strict=True)])
                for part in (0, 1)
            )
            cache.update(keys, values, layer)
        real = torch.tensor([[0] * (width - n) + [1] * n for n in lengths], device=self._model.device)
        return cache, real

    def _read(self, prefix: tuple[int, ...]) -> _Read:
        """Return what the base model keeps of one prefix."""
        found = self._known.get(prefix)
        if found is None:
            found = self._read_anew(prefix)
            size = sum(part.nbytes for layer in found for part in layer)
            while self._known and self._bytes + size > self._most_bytes:
                # By chance: passes over more than fits would drop the oldest just before it is read again.
                forgotten = self._known.pop(self._chance.choice(list(self._known)))
                self._bytes -= sum(part.nbytes for layer in forgotten for part in layer)
            if size <= self._most_bytes:
                self._known[prefix] = found
                self._bytes += size
        return found

    def _read_anew(self, prefix: tuple[int, ...]) -> _Read:
        training = self._model.training
        self._model.train(False)
        try:
            # Not in inference mode, even inside one: a later training step may use what is kept.
            with torch.inference_mode(False), torch.no_grad(), adapter_disabled(self._model):
                ids = torch.tensor([prefix], device=self._model.device)
                kept = self._model.base_model(input_ids=ids, use_cache=True).cache
        finally:
            self._model.train(training)
        return [(layer.keys[0], layer.values[0]) for layer in kept.layers]


def _padded(part: torch.Tensor, length: int, width: int) -> torch.Tensor:
    """Return (heads, width, dim): the first tokens of a part, zeros before them."""
    return pad(part[:, :length], (0, 0, width - length, 0))


def remembers_all(config: PreTrainedConfig) -> bool:
    """Return whether a causal model keeps the keys and values of all tokens: no sliding window, no recurrence."""
    text: Any = config.get_text_config()
    layers = set(getattr(text, "layer_types", None) or ["full_attention"])
    window = getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)
    causal: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    takes = set(inspect.signature(causal.forward).parameters) if causal else set()
    return layers == {"full_attention"} and not window and {"position_ids", "cache"} <= takes
