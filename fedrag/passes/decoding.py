"""Greedy decoding: in recorded steps on a GPU; on a CPU after prompts were read beside one another.

There transformers would read a whole batch of prompts in one pass, far more than stays close to the processor, and its
cache grows by copying all that it holds with each new token (tests/benchmarks/README.md): here it has room for the
answers. A cache of a fixed size of its own stays on the model when the answers are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from fedrag.models.cache_keyword import CACHE
from fedrag.models.generator import Generator
from fedrag.passes.batches import padded, plan_prefix_batches
from fedrag.passes.cuda_graph_decoding import RecordedDecoding
from fedrag.passes.prefix import Read, fill_cache, read_first_prefixes, share_a_prefix
from fedrag.passes.threads import passes_beside, running_beside
from fedrag.types import Example

_PASS_TOKENS = 1024  # of one pass of several; in far larger ones the processor does less


def decode(generator: Generator, batch: Sequence[Example], answer_tokens: int) -> list[list[int]]:
    """Decode greedily, one batch.

    Args:
        generator: Decodes with its current adapter.
        batch: Prompts; padded on the left for causal models.
        answer_tokens: Longest answer.

    Returns:
        The new token ids of each prompt, end and padding tokens included.
    """
    if generator.can_be_recorded and RecordedDecoding.suits(generator.model):
        return generator.recorded_decoding.generate([example.prompt for example in batch], answer_tokens)
    cache, read = _read_beginnings(generator, batch, answer_tokens)
    starts = [sum(places) for places in read]
    prompts = [example.prompt[start:] for example, start in zip(batch, starts, strict=True)]
    pad, left, device = generator.pad_id, not generator.seq2seq, generator.model.device
    width = max(map(len, prompts))
    rows = [padded(prompt, width, pad, left=left) for prompt in prompts]
    masks = [padded([1] * len(prompt), width, 0, left=left) for prompt in prompts]
    # What is in the cache counts as input, but only the mask is looked at.
    rows = [[pad] * len(places) + row for places, row in zip(read, rows, strict=True)]
    masks = [places + mask for places, mask in zip(read, masks, strict=True)]
    with torch.inference_mode():
        output = generator.model.generate(  # type: ignore[operator]  # the mixin that brings it is not typed
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor(masks, device=device),
            max_new_tokens=answer_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,  # some models bring one of their own: greedy would not be greedy
            pad_token_id=pad,
            eos_token_id=generator.end_ids,
            **({} if cache is None else {CACHE: cache}),
        )
    start = 1 if generator.seq2seq else len(rows[0])
    return [row[start:] for row in output.tolist()]


def _read_beginnings(
    generator: Generator, batch: Sequence[Example], answer_tokens: int
) -> tuple[DynamicCache | None, list[list[int]]]:
    """Read what is read before a decoding, remembered or quicker than by the model's own `generate`.

    Returns:
        A cache with room for the rest, or None; and for each prompt the cache's places, 1 where they are its own first
        tokens and 0 where they are padding.
    """
    model = generator.model
    nothing: list[list[int]] = [[] for _ in batch]
    if not generator.can_share:
        return None, nothing
    if generator.prefixes is not None:
        cache = decoding_cache(model, max(len(e.prompt) - e.shared for e in batch) + answer_tokens)
        return cache, generator.prefixes.read(batch, cache)[1].tolist()
    cache = decoding_cache(model, answer_tokens)
    passes = passes_beside(model.device, disturbed=generator.changes_while_reading)
    if passes == 1:
        return cache, nothing
    prompts = [replace(example, prompt=example.prompt[:-1], answer=[]) for example in batch]
    return cache, read_beside(model, prompts, cache, passes).tolist()


def decoding_cache(model: PreTrainedModel, room: int) -> DynamicCache:
    """Return an empty cache for a decoding without gradient.

    Args:
        model: A model whose layers all keep the keys and values of all tokens.
        room: Tokens that will follow what is put in first.
    """
    cache = DynamicCache()
    cache.layers = [_RoomyLayer(room) for _ in range(model.config.get_text_config().num_hidden_layers)]
    return cache


def read_beside(model: PreTrainedModel, prompts: Sequence[Example], cache: DynamicCache, passes: int) -> torch.Tensor:
    """Read prompts into an empty cache, in passes beside one another; a first passage that several have is read once.

    Args:
        model: A causal model; what it says is not asked for.
        prompts: Examples without answers.
        cache: Gets their keys and values, padded on the left.
        passes: Passes at a time.

    Returns:
        Which places of the cache are no padding (prompts, width).
    """
    plans = plan_prefix_batches(prompts, _PASS_TOKENS)
    with running_beside(passes) as run:
        parts = list(run(partial(_read, model, [prompts[row] for row in rows]) for rows in plans))
    reads = {row: read for rows, part in zip(plans, parts, strict=True) for row, read in zip(rows, part, strict=True)}
    return fill_cache(cache, [[reads[row]] for row in range(len(prompts))])


def _read(model: PreTrainedModel, batch: Sequence[Example]) -> list[Read]:
    """Return the keys and values of each prompt of a batch."""
    with torch.inference_mode():
        cache, seen = DynamicCache(), torch.zeros(len(batch), 0, dtype=torch.long, device=model.device)
        if share_a_prefix(batch):
            cache, seen = read_first_prefixes(model, batch)
        rests = [example.prompt[read:] for example, read in zip(batch, seen.sum(dim=1).tolist(), strict=True)]
        width = max(map(len, rests))
        own = torch.tensor([[1] * len(rest) + [0] * (width - len(rest)) for rest in rests], device=model.device)
        mask = torch.cat([seen, own], dim=1)
        model.base_model(
            input_ids=torch.tensor([rest + [0] * (width - len(rest)) for rest in rests], device=model.device),
            attention_mask=mask,
            position_ids=seen.sum(dim=1, keepdim=True) + torch.arange(width, device=model.device),
            use_cache=True,
            **{CACHE: cache},
        )
        layers: list[Any] = cache.layers
        return [
            [(layer.keys[i][:, real], layer.values[i][:, real]) for layer in layers]
            for i, real in enumerate(mask.bool())
        ]


class _RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # its base registers subclasses, untyped
    """One layer; `keys` and `values` (batch, heads, tokens, dim) are the filled parts of larger tensors."""

    def __init__(self, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._room = room
        self._whole: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put in new keys and values (batch, heads, new, dim); return those of all tokens so far."""
        seen = self.get_seq_length()
        end = seen + key_states.shape[2]
        if not self._whole or end > self._whole[0].shape[2]:
            before = [part[:, :, :seen] for part in (self._whole or (key_states, value_states))]
            self._whole = [_with_room(part, end + self._room) for part in before]
            self.is_initialized = True
        for whole, new in zip(self._whole, (key_states, value_states), strict=True):
            whole[:, :, seen:end] = new
        self.keys, self.values = (whole[:, :, :end] for whole in self._whole)
        return self.keys, self.values


def _with_room(part: torch.Tensor, tokens: int) -> torch.Tensor:
    batch, heads, seen, dim = part.shape
    whole = part.new_empty(batch, heads, tokens, dim)
    whole[:, :, :seen] = part
    return whole
