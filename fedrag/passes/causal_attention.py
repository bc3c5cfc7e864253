"""Causal attention in blocks of positions: what no position of a block sees is not computed.

Computed whole, half of all scores are hidden again. Its backward pass is written out here: made by autograd, each block
would add a gradient of full width to those of keys and values.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch.autograd.function import once_differentiable

_BLOCK = 64  # positions; smaller blocks compute less that is hidden, in smaller products


def causal_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """Return softmax(scaling * query key^T) value, where a position sees itself and all before it.

    Args:
        query: (pairs, group, tokens, dim): the heads that share the keys of one pair.
        key: (pairs, keys, dim); the last of them are the tokens' own.
        value: As key.
        scaling: Factor on the scores.

    Returns:
        (pairs, group, tokens, dim).
    """
    result: torch.Tensor = _CausalAttention.apply(query, key, value, scaling)  # type: ignore[no-untyped-call]
    return result


def causal_scores(tokens: int) -> int:
    """Return how many scores are computed of a text.

    >>> causal_scores(65)
    4161
    """
    return sum((block.stop - block.start) * seen for block, seen in _blocks(tokens, tokens))


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        pairs, group, tokens, _ = query.shape
        out = query.new_empty(query.shape)
        kept: list[torch.Tensor] = []
        for block, seen in _blocks(tokens, key.shape[1]):
            asked = _rows(query, block)
            scores = _product(asked, key[:, :seen].transpose(1, 2), scaling)
            own = block.stop - block.start
            scores.view(pairs, group, own, seen)[..., seen - own :].add_(_later(own, query.dtype))
            # In float32: in bfloat16 it takes twice as long, unless keys come in multiples of 32.
            weights = torch.softmax(scores, dim=-1, dtype=_exact(scores.dtype)).to(scores.dtype)
            out[:, :, block] = torch.bmm(weights, value[:, :seen]).view(pairs, group, own, -1)
            kept += [asked, weights]
        ctx.save_for_backward(key, value, *kept)
        ctx.scaling = scaling
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        key, value, *kept = ctx.saved_tensors
        pairs, group, tokens, _ = gradient.shape
        by_query = gradient.new_empty(gradient.shape)
        by_key, by_value = torch.zeros_like(key), torch.zeros_like(value)
        for i, (block, seen) in enumerate(_blocks(tokens, key.shape[1])):
            asked, weights = kept[2 * i : 2 * i + 2]
            rows = _rows(gradient, block)
            by_value[:, :seen].baddbmm_(weights.transpose(1, 2), rows)
            by_weights = torch.bmm(rows, value[:, :seen].transpose(1, 2))
            by_scores = torch.ops.aten._softmax_backward_data(by_weights, weights, -1, weights.dtype)
            found = _product(by_scores, key[:, :seen], ctx.scaling)
            by_query[:, :, block] = found.view(pairs, group, block.stop - block.start, -1)
            by_key[:, :seen].baddbmm_(by_scores.transpose(1, 2), asked, alpha=ctx.scaling)
        return by_query, by_key, by_value, None


def _blocks(tokens: int, keys: int) -> Iterator[tuple[slice, int]]:
    """Give each block of positions and how many keys its last one sees."""
    for start in range(0, tokens, _BLOCK):
        stop = min(start + _BLOCK, tokens)
        yield slice(start, stop), keys - tokens + stop


def _rows(heads: torch.Tensor, block: slice) -> torch.Tensor:
    """Return a block (pairs, group * positions, dim), the heads of a pair one below the other."""
    return heads[:, :, block].reshape(heads.shape[0], -1, heads.shape[-1])


def _product(left: torch.Tensor, right: torch.Tensor, factor: float) -> torch.Tensor:
    return torch.baddbmm(left.new_empty(1, 1, 1), left, right, beta=0, alpha=factor)


def _exact(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


@lru_cache(maxsize=8)
def _later(tokens: int, dtype: torch.dtype) -> torch.Tensor:
    """Return (tokens, tokens): the lowest number where the key comes after the query, else 0."""
    with torch.inference_mode(False):
        return torch.full((tokens, tokens), torch.finfo(dtype).min, dtype=dtype).triu(1)
