"""Greedy decoding by transformers, from prompts that were read along the chosen path.

On its own transformers would read a whole batch of prompts in one pass, far more than stays in a processor's caches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from fedrag.models.cache_keyword import CACHE
from fedrag.models.generator import Generator
from fedrag.passes.batches import padded, plan_prefix_batches
from fedrag.passes.prefix import KeysAndValues, filled_cache, read_first_prefixes, share_a_prefix
from fedrag.passes.reading import reader_of
from fedrag.passes.roomy_cache import RoomyCache
from fedrag.passes.threads import thread_pool
from fedrag.types import Example

_PASS_TOKENS = 1024  # of one pass of several; far larger passes are slower


OnTokens = Callable[[list[list[int]], list[float]], None]
"""Takes the tokens so far of each row, and the smallest lead of each."""


class Leads(LogitsProcessor):
    """Notes by how much each chosen token leads the next best, as a part of the largest score; changes no score.

    Args:
        on_tokens: Called before each token but the first.
    """

    def __init__(self, on_tokens: OnTokens | None = None) -> None:
        self._on_tokens = on_tokens
        self._steps: list[torch.Tensor] = []
        self._start = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Note the leads of one step from the tokens before it (rows, tokens) and the scores (rows, vocabulary)."""
        if not self._steps:
            self._start = input_ids.shape[1]
        elif self._on_tokens is not None:
            smallest = torch.stack(self._steps).amin(dim=0)
            self._on_tokens(input_ids[:, self._start :].tolist(), smallest.tolist())
        first, second = scores.float().topk(2).values.unbind(dim=-1)
        largest = scores.float().nan_to_num(posinf=0.0, neginf=0.0).abs().amax(dim=-1)
        self._steps.append((first - second) / largest.clamp(min=1e-9))
        return scores

    def smallest(self, decoded: Sequence[Sequence[int]], end_ids: Sequence[int]) -> list[float]:
        """Return the smallest lead of each row, up to the token that ends it."""
        steps = torch.stack(self._steps).T.tolist()
        return [min(leads[: answer_length(ids, end_ids)]) for leads, ids in zip(steps, decoded, strict=True)]


def decode(
    generator: Generator, batch: Sequence[Example], answer_tokens: int, leads: Leads | None = None
) -> list[list[int]]:
    """Decode one batch greedily.

    Args:
        generator: Decodes with its current adapter.
        batch: Prompts; padded on the left for causal models.
        answer_tokens: Longest answer.
        leads: Notes how sure the choice of each token is.

    Returns:
        The new token ids of each prompt, end and padding tokens included.
    """
    return generate(generator, batch, answer_tokens, *_read_beginnings(generator, batch, answer_tokens), leads)


def generate(
    generator: Generator,
    batch: Sequence[Example],
    answer_tokens: int,
    cache: DynamicCache | None,
    cached: Sequence[Sequence[int]],
    observer: LogitsProcessor | None,
) -> list[list[int]]:
    """Decode prompts of which the first tokens may have been read, as `decode` describes it.

    Args:
        generator: Decodes with its current adapter.
        batch: Prompts.
        answer_tokens: Longest answer.
        cache: Keys and values of the first tokens of each prompt; None: the model makes its own.
        cached: The mask of each prompt's places in the cache: 1 for its own first tokens, 0 for padding.
        observer: Is shown the scores of each step.
    """
    prompts = [example.prompt[sum(mask) :] for example, mask in zip(batch, cached, strict=True)]
    pad, left, device = generator.pad_id, not generator.seq2seq, generator.model.device
    width = max(map(len, prompts))
    rows = [padded(prompt, width, pad, left=left) for prompt in prompts]
    masks = [padded([1] * len(prompt), width, 0, left=left) for prompt in prompts]
    # The model does not read again what is in the cache, but settings against repetition look at its tokens.
    rows = [_tokens_of(mask, example.prompt, pad) + row for mask, example, row in zip(cached, batch, rows, strict=True)]
    masks = [[*before, *mask] for before, mask in zip(cached, masks, strict=True)]
    with torch.inference_mode():
        output = generator.model.generate(  # type: ignore[operator]  # the mixin that brings it is not typed
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor(masks, device=device),
            max_new_tokens=answer_tokens,
            do_sample=False,
            num_beams=1,
            tokenizer=generator.tokenizer,  # for settings of a model's own that name strings
            return_dict_in_generate=False,
            cache_implementation=None,
            pad_token_id=pad,
            eos_token_id=generator.end_ids,
            logits_processor=LogitsProcessorList([] if observer is None else [observer]),
            **({} if cache is None else {CACHE: cache}),
        )
    start = 1 if generator.seq2seq else len(rows[0])
    return [row[start:] for row in output.tolist()]


def answer_length(ids: Sequence[int], end_ids: Sequence[int]) -> int:
    """Return the number of tokens up to the first that ends an answer, it included.

    >>> answer_length([5, 2, 0, 0], end_ids=[2])
    2
    """
    return next((place for place, token in enumerate(ids, start=1) if token in end_ids), len(ids))


def _tokens_of(mask: Sequence[int], prompt: Sequence[int], pad: int) -> list[int]:
    """Return the tokens of a prompt's places in the cache.

    >>> _tokens_of([0, 1, 0, 1], [7, 8, 9], pad=0)
    [0, 7, 0, 8]
    """
    tokens = iter(prompt)
    return [next(tokens) if place else pad for place in mask]


def _read_beginnings(
    generator: Generator, batch: Sequence[Example], answer_tokens: int
) -> tuple[DynamicCache | None, list[list[int]]]:
    """Read the beginnings of prompts, where the path has a faster way than `generate`.

    Returns:
        A cache with room for the rest, or None; and the mask of each prompt's places in it, 1 for its own first tokens
        and 0 for padding.
    """
    reader = reader_of(generator)
    path = reader.paths.decoding
    if reader.prefixes is not None:
        room = answer_tokens + max(example.length - example.shared for example in batch)
        cache, mask = reader.prefixes.read(batch, room)
        return cache, mask.tolist()
    if path.name == "shared" and all(example.length > 1 for example in batch):
        prompts = [replace(example, prompt=example.prompt[:-1], answer=[]) for example in batch]
        cache, mask = read_prompts(generator.model, prompts, path.threads, answer_tokens + 1)
        return cache, mask.tolist()
    nothing: list[list[int]] = [[] for _ in batch]
    if reader.traits.keeps_all:
        return RoomyCache(answer_tokens + max(example.length for example in batch)), nothing
    return None, nothing


def read_prompts(
    model: PreTrainedModel, prompts: Sequence[Example], threads: int, room: int = 0
) -> tuple[DynamicCache, torch.Tensor]:
    """Read prompts in several threads; a first passage that several prompts have in common is read once.

    Args:
        model: A causal model; its logits are not computed.
        prompts: Examples without answers.
        threads: Passes at a time.
        room: Tokens that decoding will add.

    Returns:
        Their keys and values, padded on the left, and which places are no padding (prompts, width).
    """
    plans = plan_prefix_batches(prompts, _PASS_TOKENS)
    with thread_pool(threads) as run:
        parts = list(run(partial(_read, model, [prompts[row] for row in rows]) for rows in plans))
    by_row: dict[int, KeysAndValues] = {}
    for rows, part in zip(plans, parts, strict=True):
        by_row |= zip(rows, part, strict=True)
    return filled_cache([[by_row[row]] for row in range(len(prompts))], room)


def _read(model: PreTrainedModel, batch: Sequence[Example]) -> list[KeysAndValues]:
    """Return the keys and values of each prompt of a batch."""
    device = model.device
    with torch.inference_mode():
        cache, cached = DynamicCache(), torch.zeros(len(batch), 0, dtype=torch.long, device=device)
        if share_a_prefix(batch):
            cache, cached = read_first_prefixes(model, batch)
        lengths = cached.sum(dim=1)
        rests = [example.prompt[length:] for example, length in zip(batch, lengths.tolist(), strict=True)]
        width = max(map(len, rests))
        own = torch.tensor([padded([1] * len(rest), width, 0) for rest in rests], device=device)
        mask = torch.cat([cached, own], dim=1)
        model.base_model(
            input_ids=torch.tensor([padded(rest, width, 0) for rest in rests], device=device),
            attention_mask=mask,
            position_ids=lengths[:, None] + torch.arange(width, device=device),
            use_cache=True,
            **{CACHE: cache},
        )
        layers: list[Any] = cache.layers
        return [
            [(layer.keys[i][:, real], layer.values[i][:, real]) for layer in layers]
            for i, real in enumerate(mask.bool())
        ]
