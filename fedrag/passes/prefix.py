"""Prefixes, the beginnings of prompts: the base model reads each once, and its keys and values are remembered.

Where an adapter acts from the question on (activated LoRA, Greenewald et al. 2025, arXiv:2504.12397), the keys and
values of instruction and passages depend on the frozen base model alone. They are the same in every pass over the
data, in every round and for every adapter, and no gradient flows through them.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Mapping, Sequence
from functools import partial
from os.path import commonprefix
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, DynamicCache, PreTrainedConfig, PreTrainedModel

from fedrag.errors import ModelError
from fedrag.models.adapters import adapter_disabled
from fedrag.models.attention_window import window_of
from fedrag.models.cache_keyword import CACHE
from fedrag.passes.batches import padded
from fedrag.passes.roomy_cache import RoomyCache
from fedrag.passes.threads import has_dynamic_rope, passes_at_a_time, thread_pool
from fedrag.types import Example

KeysAndValues = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values (heads, tokens, dim) of each layer."""

_Prefix = tuple[tuple[int, ...], tuple[int, ...]]  # the ends of its passages, and its tokens


class PrefixReader:
    """Reads the prefixes of prompts with the base model, and remembers as many as fit into its memory.

    A prefix is read passage by passage, each after those before it, so what two prompts begin with is read and stored
    once. Each passage is read in a pass of its own, with the same number of threads whether or not another pass runs.
    So its keys and values are the same bits in every batch, whether they were remembered or are read again.

    Args:
        model: A causal model.
        most_bytes: Memory for keys and values.

    Raises:
        ModelError: The model does not keep the keys and values of all tokens.
    """

    def __init__(self, model: PreTrainedModel, most_bytes: float) -> None:
        if not remembers_all(model.config):
            raise ModelError(f"{type(model).__name__} does not keep the keys and values of all tokens")
        self._model = model
        self._most_bytes = most_bytes
        self._bytes = 0
        self._known: dict[_Prefix, KeysAndValues] = {}
        self._chance = random.Random(0)

    def read(self, batch: Sequence[Example], room: int = 0) -> tuple[DynamicCache, torch.Tensor]:
        """Return the keys and values of the prefixes of a batch.

        Args:
            batch: Examples with prefixes of at least one token.
            room: Tokens that decoding will add; 0: what is added may need a gradient.

        Returns:
            A cache (batch, heads, width, dim) for each layer, padded on the left, which the caller may change; and a
            mask (batch, width) of the places that are no padding.
        """
        found: dict[_Prefix, KeysAndValues] = {}
        rows = [_prefixes(example) for example in batch]
        for depth in range(max(map(len, rows))):
            wanted = dict.fromkeys(row[: depth + 1] for row in rows if len(row) > depth)
            found |= {row[-1]: self._known[row[-1]] for row in wanted if row[-1] in self._known}
            missing = [row for row in wanted if row[-1] not in found]
            new = self._read_missing(missing, found) if missing else []
            for row, read in zip(missing, new, strict=True):
                found[row[-1]] = read
                self._remember(row[-1], read)
        return filled_cache([[found[prefix] for prefix in row] for row in rows], room)

    @property
    def _layers(self) -> int:
        return int(self._model.config.get_text_config().num_hidden_layers)

    def _remember(self, prefix: _Prefix, read: KeysAndValues) -> None:
        size = _nbytes(read)
        while self._known and self._bytes + size > self._most_bytes:
            # A random one: where not all fit, a pass over the data would drop the oldest just before it is read again.
            self._bytes -= _nbytes(self._known.pop(self._chance.choice(list(self._known))))
        if size <= self._most_bytes:
            self._known[prefix] = read
            self._bytes += size

    def _read_missing(
        self, rows: Sequence[tuple[_Prefix, ...]], found: Mapping[_Prefix, KeysAndValues]
    ) -> list[KeysAndValues]:
        """Read the last passage of each row; the passages before it were found."""
        training = self._model.training
        self._model.train(False)
        try:
            on_gpu = self._model.device.type == "cuda"
            passes = 1 if has_dynamic_rope(self._model.config) else passes_at_a_time(on_gpu=on_gpu)
            with adapter_disabled(self._model), thread_pool(passes, same_threads=True) as run:
                return list(run(partial(self._read_one, row, found) for row in rows))
        finally:
            self._model.train(training)

    def _read_one(self, row: tuple[_Prefix, ...], found: Mapping[_Prefix, KeysAndValues]) -> KeysAndValues:
        *before, (ends, tokens) = row
        new = tokens[ends[-2] if before else 0 :]
        # Inference mode off: a later training step may use these tensors.
        with torch.inference_mode(False), torch.no_grad():
            cache = DynamicCache()
            for layer in range(self._layers if before else 0):
                keys, values = (_joined([found[prefix][layer][part] for prefix in before])[None] for part in (0, 1))
                cache.update(keys, values, layer)
            ids = torch.tensor([new], device=self._model.device)
            filled = self._model.base_model(input_ids=ids, use_cache=True, **{CACHE: cache})[CACHE]
            # Copies: a view would keep the passages before it in memory too.
            parts = [(layer.keys[0, :, -len(new) :], layer.values[0, :, -len(new) :]) for layer in filled.layers]
            return [(keys.clone(), values.clone()) for keys, values in parts]


def _prefixes(example: Example) -> tuple[_Prefix, ...]:
    """Return an example's prefixes, each one passage longer than the one before."""
    ends = example.prefix_ends
    return tuple((ends[: i + 1], tuple(example.prompt[:end])) for i, end in enumerate(ends))


def _nbytes(read: KeysAndValues) -> int:
    return sum(part.nbytes for layer in read for part in layer)


def _joined(parts: Sequence[torch.Tensor], width: int = 0) -> torch.Tensor:
    """Concatenate parts (heads, tokens, dim), with zeros before them up to a width."""
    joined = torch.cat(list(parts), dim=1)
    return pad(joined, (0, 0, max(width - joined.shape[1], 0), 0))


def filled_cache(
    rows: Sequence[Sequence[KeysAndValues]], room: int = 0, width: int = 0
) -> tuple[DynamicCache, torch.Tensor]:
    """Return a cache that holds the parts of each row, one after the other, padded on the left.

    Args:
        rows: The parts of each row.
        room: Tokens that decoding will add; 0: what is added may need a gradient.
        width: Least width to which rows are padded.

    Returns:
        The cache, and which of its places are no padding (rows, width).
    """
    lengths = [sum(read[0][0].shape[1] for read in row) for row in rows]
    width = max(width, *lengths)
    cache = RoomyCache(width + room) if room else DynamicCache()
    for layer in range(len(rows[0][0])):
        keys, values = (
            torch.stack([_joined([read[layer][part] for read in row], width) for row in rows]) for part in (0, 1)
        )
        cache.update(keys, values, layer)
    device = rows[0][0][0][0].device
    mask = [padded([1] * length, width, 0, left=True) for length in lengths]
    return cache, torch.tensor(mask, device=device)


def share_a_prefix(batch: Sequence[Example]) -> bool:
    """Return whether all examples have a first passage, and some of them the same."""
    prefixes = [example.first_prefix for example in batch]
    return all(prefixes) and len(set(prefixes)) < len(prefixes)


def read_first_prefixes(model: PreTrainedModel, batch: Sequence[Example]) -> tuple[DynamicCache, torch.Tensor]:
    """Read instruction and first passage of each example with the model as it is, adapter included.

    Equal prefixes are read once, and the instruction once for all of them.

    Returns:
        A cache (batch, heads, width, dim) for each layer, padded on the right, and a mask (batch, width) of the places
        that are no padding.
    """
    prefixes = [example.first_prefix for example in batch]
    places = {prefix: place for place, prefix in enumerate(dict.fromkeys(prefixes))}
    width = max(map(len, prefixes))
    instruction = len(commonprefix(list(places))) if len(places) > 1 else 0
    # Any token can be the padding: causal attention does not look at what comes after a token.
    ids = torch.tensor([padded(prefix, width, 0) for prefix in places], device=model.device)
    cache = DynamicCache()
    if instruction:
        model.base_model(input_ids=ids[:1, :instruction], use_cache=True, **{CACHE: cache})
        cache.batch_repeat_interleave(len(places))
    model.base_model(input_ids=ids[:, instruction:], use_cache=True, **{CACHE: cache})
    cache.batch_select_indices(torch.tensor([places[prefix] for prefix in prefixes], device=model.device))
    mask = [padded([1] * len(prefix), width, 0) for prefix in prefixes]
    return cache, torch.tensor(mask, device=model.device)


def remembers_all(config: PreTrainedConfig) -> bool:
    """Return whether a causal model attends to all tokens and keeps their keys and values: no window, no recurrence."""
    layers = set(getattr(config.get_text_config(), "layer_types", None) or ["full_attention"])
    keeps = layers <= {"full_attention", "sliding_attention"} and window_of(config) is None
    causal: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    parameters = set(inspect.signature(causal.forward).parameters) if causal else set()
    return keeps and {"position_ids", CACHE} <= parameters
