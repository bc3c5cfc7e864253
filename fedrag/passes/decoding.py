"""Greedy decoding by transformers, after prompts were read in the way that is fastest.

Left to itself transformers would read a whole batch of prompts in one pass, far more than stays close to a processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from fedrag.models.cache_keyword import CACHE
from fedrag.models.generator import Generator
from fedrag.passes.batches import padded, plan_prefix_batches
from fedrag.passes.prefix import Read, filled_cache, read_first_prefixes, share_a_prefix
from fedrag.passes.reading import reader_of
from fedrag.passes.threads import thread_pool
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
    cache, read = _read_beginnings(generator, batch)
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


def _read_beginnings(generator: Generator, batch: Sequence[Example]) -> tuple[DynamicCache | None, list[list[int]]]:
    """Read what is read before a decoding, remembered or quicker than by the model's own `generate`.

    Returns:
        A cache, or None; and for each prompt the cache's places, 1 where they are its own first tokens and 0 where they
        are padding.
    """
    reader = reader_of(generator)
    path = reader.paths.decoding
    if reader.prefixes is not None:
        cache, real = reader.prefixes.read(batch)
    elif path.name == "shared":
        prompts = [replace(example, prompt=example.prompt[:-1], answer=[]) for example in batch]
        cache, real = read_prompts(generator.model, prompts, path.threads)
    else:
        return None, [[] for _ in batch]
    return cache, real.tolist()


def read_prompts(model: PreTrainedModel, prompts: Sequence[Example], threads: int) -> tuple[DynamicCache, torch.Tensor]:
    """Read prompts in several threads; a first passage that several have is read once.

    Args:
        model: A causal model; what it says is not asked for.
        prompts: Examples without answers.
        threads: Passes at a time.

    Returns:
        Their keys and values, padded on the left, and which places are no padding (prompts, width).
    """
    plans = plan_prefix_batches(prompts, _PASS_TOKENS)
    with thread_pool(threads) as run:
        parts = list(run(partial(_read, model, [prompts[row] for row in rows]) for rows in plans))
    reads = {row: read for rows, part in zip(plans, parts, strict=True) for row, read in zip(rows, part, strict=True)}
    return filled_cache([[reads[row]] for row in range(len(prompts))])


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
