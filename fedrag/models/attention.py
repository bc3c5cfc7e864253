"""Attention for CPUs as plain batched products.

torch's fused attention for CPUs spends its time in small blocks. For texts of ordinary length the scores fit into
memory, and two batched products with a softmax between them run at the processor's full speed: in any number format
where a text sees only what comes before, and in bfloat16 behind other masks, too. What is unusual (a single new token,
very long texts, dropout on the weights) goes to the fused kernel as before.

Where a text sees only what comes before, half of all scores would be hidden again: the products run over blocks of
positions, and what no position of a block sees is not computed. The backward pass is written out: in the one that
autograd makes, each block adds a gradient of full width to those of keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "cpu_attention"
LONGEST = 768  # tokens; the scores of longer texts cost more memory than they save time
_BLOCK = 64  # positions; smaller blocks compute less that is hidden, in smaller products

_Attend = Callable[..., tuple[torch.Tensor, None]]


def use_cpu_attention(model: PreTrainedModel) -> None:
    """Let a model use `cpu_attention` where it computes on a CPU and would use the fused kernel."""
    if model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


def uses_cpu_attention(model: PreTrainedModel) -> bool:
    """Return whether a model uses `cpu_attention`, be it within another function."""
    return str(model.config._attn_implementation).endswith(NAME)


def is_in_products(model: PreTrainedModel) -> bool:
    """Return whether a model's attention is computed as products."""
    causal = not model.config.is_encoder_decoder
    return uses_cpu_attention(model) and (causal or model.dtype == torch.bfloat16)


def cpu_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Return softmax(scaling * query key^T) value, where each position sees what the mask lets it see.

    Args:
        module: The attention layer.
        query: (batch, heads, tokens, dim).
        key: (batch, key heads, keys, dim); each serves heads / key heads neighbouring heads. Keys of what was read
            before come first, so that there may be more than tokens.
        value: As key.
        attention_mask: Booleans (batch or 1, 1, tokens, keys), true where a position is seen. None: in a causal
            layer a position sees itself and those before it, in any other layer all.
        dropout: Probability of leaving a weight out.
        scaling: Factor on the scores; None: 1 / sqrt(dim).
        options: What else the fused kernel would be told.

    Returns:
        (batch, tokens, heads, dim), and no weights.
    """
    fused: _Attend = partial(sdpa_attention_forward, module, dropout=dropout, scaling=scaling, **options)
    if not can_be_products(dropout, options):
        return fused(query, key, value, attention_mask)
    asked = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if asked is None else asked
    return product_attention(query, key, value, attention_mask, scaling=scaling, causal=causal, otherwise=fused)


def can_be_products(dropout: float, options: Mapping[str, Any]) -> bool:
    """Return whether a layer asks for nothing of its attention but the products and the softmax between them."""
    return not dropout and all(options.get(name) is None for name in ("softcap", "position_bias", "cache"))


def product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None,
    causal: bool,
    otherwise: _Attend,
) -> tuple[torch.Tensor, None]:
    """Compute attention as products.

    Args:
        query: As `cpu_attention`, and so the next three.
        key: See there.
        value: See there.
        attention_mask: See there.
        scaling: Factor on the scores; None: 1 / sqrt(dim).
        causal: Whether, without a mask, a position sees no later ones.
        otherwise: Computes what is unusual, from the first four.
    """
    batch, heads, tokens, dim = query.shape
    seen = key.shape[2]
    if tokens == 1 or tokens * seen > LONGEST**2 or not _is_usual(attention_mask, tokens, seen):
        return otherwise(query, key, value, attention_mask)
    key_heads = key.shape[1]
    pairs, group = batch * key_heads, heads // key_heads
    keys, values = key.reshape(pairs, seen, dim), value.reshape(pairs, seen, dim)
    factor = dim**-0.5 if scaling is None else scaling
    in_blocks = causal if attention_mask is None else _hides_what_comes_later(attention_mask)
    if not in_blocks and query.dtype != torch.bfloat16:
        return otherwise(query, key, value, attention_mask)
    if in_blocks:
        mixed = causal_attention(query.reshape(pairs, group, tokens, dim), keys, values, factor)
    else:
        queries = query.reshape(pairs, group * tokens, dim)  # the heads of one key head, one below the other
        scores = torch.bmm(queries * factor, keys.transpose(1, 2))
        if attention_mask is not None:
            hidden = torch.zeros(attention_mask.shape, dtype=query.dtype)
            hidden.masked_fill_(~attention_mask, torch.finfo(query.dtype).min)  # finite: a row may see nothing
            scores.view(batch, heads, tokens, seen).add_(hidden)
        mixed = torch.bmm(torch.softmax(scores, dim=-1), values)
    return mixed.view(batch, heads, tokens, dim).transpose(1, 2), None


def kept_scores(tokens: int) -> int:
    """Return how many scores a head of a causal layer keeps of a text for the backward pass."""
    return causal_scores(tokens) if tokens <= LONGEST else 0


def _is_usual(attention_mask: torch.Tensor | None, tokens: int, seen: int) -> bool:
    if attention_mask is None:
        return tokens == seen
    return attention_mask.dtype == torch.bool and attention_mask.shape[1:] == (1, tokens, seen)


def _hides_what_comes_later(mask: torch.Tensor) -> bool:
    """Return whether a mask (batch, 1, tokens, keys) is that of a causal layer, with nothing padded."""
    return torch.equal(mask, continued(*mask.shape[2:]).expand_as(mask))


@lru_cache(maxsize=64)
def continued(tokens: int, keys: int) -> torch.Tensor:
    """Return what the last tokens of a text see of it (1, 1, tokens, keys)."""
    with torch.inference_mode(False):
        return torch.ones(1, 1, tokens, keys, dtype=torch.bool).tril(keys - tokens)


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


AttentionInterface.register(NAME, cpu_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
