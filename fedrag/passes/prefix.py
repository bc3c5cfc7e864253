"""The beginnings of prompts, read by the base model alone, once, and remembered.

Where an adapter acts from the question on (activated LoRA, Greenewald et al. 2025, arXiv:2504.12397), the keys and
values of instruction and passages depend on the frozen base model alone. They are the same in every pass over the
data, in every round and for every adapter, and no gradient goes through them.
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
from fedrag.models.cache_keyword import CACHE
from fedrag.passes.threads import changes_with_texts, passes_at_a_time, thread_pool
from fedrag.types import Example

Read = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values (heads, tokens, dim) of each layer."""

_Prefix = tuple[tuple[int, ...], tuple[int, ...]]  # where its passages end, and its tokens


class PrefixReader:
    """Reads what prompts have before their question with the base model, and remembers what fits into its memory.

    A prefix is read passage by passage, each after those before it: what two prompts begin with alike is read and kept
    once. Each passage is read in a pass of its own, with as many threads beside another one as alone, so its keys and
    values are the same bits whatever it is batched with, and whether it was remembered or is read again.

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
        self._known: dict[_Prefix, Read] = {}
        self._chance = random.Random(0)

    def read(self, batch: Sequence[Example]) -> tuple[DynamicCache, torch.Tensor]:
        """Return the keys and values of the prefixes of a batch, padded on the left, and which of them are real.

        Args:
            batch: Examples with prefixes of one token or more.

        Returns:
            A cache of (batch, heads, width, dim) a layer that may be changed, and a mask (batch, width).
        """
        found: dict[_Prefix, Read] = {}
        rows = [_prefixes(example) for example in batch]
        for depth in range(max(map(len, rows))):
            wanted = dict.fromkeys(row[: depth + 1] for row in rows if len(row) > depth)
            found |= {row[-1]: self._known[row[-1]] for row in wanted if row[-1] in self._known}
            missing = [row for row in wanted if row[-1] not in found]
            reads = self._read_anew(missing, found) if missing else []
            for row, read in zip(missing, reads, strict=True):
                found[row[-1]] = read
                self._remember(row[-1], read)
        return filled_cache([[found[prefix] for prefix in row] for row in rows])

    @property
    def _layers(self) -> int:
        return int(self._model.config.get_text_config().num_hidden_layers)

    def _remember(self, prefix: _Prefix, read: Read) -> None:
        size = _nbytes(read)
        while self._known and self._bytes + size > self._most_bytes:
            # By chance: passes over more than fits would drop the oldest just before it is read again.
            self._bytes -= _nbytes(self._known.pop(self._chance.choice(list(self._known))))
        if size <= self._most_bytes:
            self._known[prefix] = read
            self._bytes += size

    def _read_anew(self, rows: Sequence[tuple[_Prefix, ...]], found: Mapping[_Prefix, Read]) -> list[Read]:
        """Read the last passage of each row, which follows those before it that were found."""
        training = self._model.training
        self._model.train(False)
        try:
            alone = changes_with_texts(self._model.config)
            passes = 1 if alone else passes_at_a_time(on_gpu=self._model.device.type == "cuda")
            with adapter_disabled(self._model), thread_pool(passes, same_threads=True) as run:
                return list(run(partial(self._read_one, row, found) for row in rows))
        finally:
            self._model.train(training)

    def _read_one(self, row: tuple[_Prefix, ...], found: Mapping[_Prefix, Read]) -> Read:
        *before, (ends, tokens) = row
        new = tokens[ends[-2] if before else 0 :]
        # Not in inference mode, even inside one: a later training step may use what is kept.
        with torch.inference_mode(False), torch.no_grad():
            cache = DynamicCache()
            for layer in range(self._layers if before else 0):
                keys, values = (_joined([found[prefix][layer][part] for prefix in before])[None] for part in (0, 1))
                cache.update(keys, values, layer)
            ids = torch.tensor([new], device=self._model.device)
            kept = self._model.base_model(input_ids=ids, use_cache=True, **{CACHE: cache})[CACHE]
            # Copies: a view would hold on to what was read before.
            parts = [(layer.keys[0, :, -len(new) :], layer.values[0, :, -len(new) :]) for layer in kept.layers]
            return [(keys.clone(), values.clone()) for keys, values in parts]


def _prefixes(example: Example) -> tuple[_Prefix, ...]:
    """Return an example's prefixes, each with one passage more."""
    ends = example.prefix_ends
    return tuple((ends[: i + 1], tuple(example.prompt[:end])) for i, end in enumerate(ends))


def _nbytes(read: Read) -> int:
    return sum(part.nbytes for layer in read for part in layer)


def _joined(parts: Sequence[torch.Tensor], width: int = 0) -> torch.Tensor:
    """Return parts (heads, tokens, dim) one after the other, with zeros before them up to a width."""
    joined = torch.cat(list(parts), dim=1)
    return pad(joined, (0, 0, max(width - joined.shape[1], 0), 0))


def filled_cache(rows: Sequence[Sequence[Read]]) -> tuple[DynamicCache, torch.Tensor]:
    """Return a cache of what was read of each row, part after part, padded on the left.

    Returns:
        The cache, and which of its places are no padding (rows, width).
    """
    cache = DynamicCache()
    lengths = [sum(read[0][0].shape[1] for read in row) for row in rows]
    width = max(lengths)
    for layer in range(len(rows[0][0])):
        keys, values = (
            torch.stack([_joined([read[layer][part] for read in row], width) for row in rows]) for part in (0, 1)
        )
        cache.update(keys, values, layer)
    device = rows[0][0][0][0].device
    real = [[0] * (width - length) + [1] * length for length in lengths]
    return cache, torch.tensor(real, device=device)


def share_a_prefix(batch: Sequence[Example]) -> bool:
    """Return whether all examples have a first passage, and some the same."""
    prefixes = [example.first_prefix for example in batch]
    return all(prefixes) and len(set(prefixes)) < len(prefixes)


def read_first_prefixes(model: PreTrainedModel, batch: Sequence[Example]) -> tuple[DynamicCache, torch.Tensor]:
    """Read instruction and first passage of each example with the model as it is, adapter included.

    The same ones are read once, and the instruction once for all.

    Returns:
        A cache of (batch, heads, width, dim) a layer, padded on the right, and a mask (batch, width) of what is real.
    """
    prefixes = [example.first_prefix for example in batch]
    places = {prefix: place for place, prefix in enumerate(dict.fromkeys(prefixes))}
    width = max(map(len, prefixes))
    instruction = len(commonprefix(list(places))) if len(places) > 1 else 0
    # Padding that comes after a token is not seen by it, whatever it is.
    ids = torch.tensor([[*prefix, *[0] * (width - len(prefix))] for prefix in places], device=model.device)
    cache = DynamicCache()
    if instruction:
        model.base_model(input_ids=ids[:1, :instruction], use_cache=True, **{CACHE: cache})
        cache.batch_repeat_interleave(len(places))
    model.base_model(input_ids=ids[:, instruction:], use_cache=True, **{CACHE: cache})
    cache.batch_select_indices(torch.tensor([places[prefix] for prefix in prefixes], device=model.device))
    real = [[1] * len(prefix) + [0] * (width - len(prefix)) for prefix in prefixes]
    return cache, torch.tensor(real, device=model.device)


def remembers_all(config: PreTrainedConfig) -> bool:
    """Return whether a causal model keeps the keys and values of all tokens: no sliding window, no recurrence."""
    text: Any = config.get_text_config()
    layers = set(getattr(text, "layer_types", None) or ["full_attention"])
    window = getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)
    causal: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    takes = set(inspect.signature(causal.forward).parameters) if causal else set()
    return layers == {"full_attention"} and not window and {"position_ids", CACHE} <= takes
