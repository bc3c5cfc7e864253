"""Greedy decoding in which the tokens of a prompt do not depend on the prompts beside it, to the last bit.

A product of matrices adds up in an order that follows from their shapes, which in bfloat16 changes many an answer. So
here every shape follows from the prompt alone: it is read in a pass of its own, its keys and values are padded to a
multiple of `WIDTH` tokens, and each step computes `ROWS` rows, whether or not there are as many prompts. In bfloat16 a
processor with units for it takes hardly longer for them than for a single row, whose time goes into reading the
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import DynamicCache, LogitsProcessor

from fedrag.models.cache_keyword import CACHE
from fedrag.models.generator import Generator
from fedrag.passes.decoding import generate
from fedrag.passes.prefix import KeysAndValues, filled_cache
from fedrag.passes.reading import reader_of
from fedrag.passes.roomy_cache import RoomyCache
from fedrag.types import Example

ROWS = 8
WIDTH = 64


def can_be_batch_invariant(generator: Generator) -> bool:
    """Return whether prompts of a generator can be read alone and decoded together."""
    traits = reader_of(generator).traits
    return traits.keeps_all and not traits.dynamic_rope


def invariant_batches(prompts: Sequence[Example]) -> list[list[int]]:
    """Return the rows of the batches in which prompts are decoded: of one padded width, at most `ROWS` each.

    >>> invariant_batches([Example([1] * n) for n in (3, 70, 5)])
    [[0, 2], [1]]
    """
    by_width: dict[int, list[int]] = {}
    for row, prompt in enumerate(prompts):
        by_width.setdefault(_width(prompt), []).append(row)
    return [rows[i : i + ROWS] for rows in by_width.values() for i in range(0, len(rows), ROWS)]


def decode_invariant(
    generator: Generator,
    batch: Sequence[Example],
    answer_tokens: int,
    on_tokens: Callable[[list[list[int]]], None] | None = None,
) -> list[list[int]]:
    """Decode one of `invariant_batches`.

    Args:
        generator: Decodes with its current adapter; `can_be_batch_invariant`.
        batch: Prompts.
        answer_tokens: Longest answer.
        on_tokens: Called before each token but the first with the tokens so far of each prompt.

    Returns:
        The new token ids of each prompt, end and padding tokens included.
    """
    idle, room, width = ROWS - len(batch), answer_tokens + 1, _width(batch[0])
    cache: DynamicCache = RoomyCache(room)
    cached: list[list[int]] = [[] for _ in range(ROWS)]
    if width:  # else each prompt is a single token, which the first step reads
        parts = [_read_alone(generator, example) for example in batch]
        cache, mask = filled_cache([[part] for part in parts + parts[:1] * idle], room, width)
        cached = mask.tolist()
    rows = [*batch, *[batch[0]] * idle]
    told = None if on_tokens is None else _Told(lambda ids: on_tokens(ids[: len(batch)]))
    return generate(generator, rows, answer_tokens, cache, cached, told)[: len(batch)]


class _Told(LogitsProcessor):
    """Tells the tokens so far of each row; changes no score."""

    def __init__(self, on_tokens: Callable[[list[list[int]]], None]) -> None:
        self._on_tokens = on_tokens
        self._start: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._start is None:
            self._start = input_ids.shape[1]
        else:
            self._on_tokens(input_ids[:, self._start :].tolist())
        return scores


def _width(prompt: Example) -> int:
    """Return the width to which a prompt is padded; its last token is read with the first step."""
    return WIDTH * -(-(len(prompt.prompt) - 1) // WIDTH)


def _read_alone(generator: Generator, example: Example) -> KeysAndValues:
    """Return the keys and values of all tokens of a prompt but the last."""
    prefixes, cache, start = reader_of(generator).prefixes, DynamicCache(), 0
    if prefixes is not None:
        cache, _ = prefixes.read([example])
        start = example.shared
    rest = example.prompt[start:-1]
    if rest:
        with torch.inference_mode():
            ids = torch.tensor([rest], device=generator.model.device)
            generator.model.base_model(input_ids=ids, use_cache=True, **{CACHE: cache})
    layers: list[Any] = cache.layers
    return [(layer.keys[0], layer.values[0]) for layer in layers]
