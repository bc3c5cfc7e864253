"""Attention for CPUs as plain batched products.

torch's fused attention for CPUs spends its time in small blocks. The scores of texts of ordinary length fit into
memory, and two batched products with a softmax between them run at the processor's full speed: in any number format
under a causal mask, and in bfloat16 under other masks as well. Everything else (a single new token, very long texts,
dropout on the weights) goes to the fused kernel.

A causal mask hides half of all scores. So the products run over blocks of positions, and keys that no position of a
block attends to are left out. The backward pass is written out: autograd's own would, for each block, add a gradient of
full width to those of keys and values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "cpu_attention"
LONGEST = 768  # tokens; the scores of longer texts cost more memory than they save time
_BLOCK = 64  # positions; smaller blocks leave out more, in smaller products


def use_cpu_attention(model: PreTrainedModel) -> None:
    """Let a model use `cpu_attention` if it computes on a CPU and would use the fused kernel."""
    if model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


def uses_cpu_attention(model: PreTrainedModel) -> bool:
    """Return whether a model uses `cpu_attention`, directly or within another function."""
    return str(model.config._attn_implementation).endswith(NAME)


def uses_products(model: PreTrainedModel) -> bool:
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
    """Return softmax(scaling * query key^T) value, where the mask says which keys each position attends to.

    Args:
        module: The attention layer.
        query: (batch, heads, tokens, dim).
        key: (batch, key heads, keys, dim); each serves heads / key heads neighbouring heads. The keys of earlier tokens
            come first, so there may be more keys than tokens.
        value: (batch, key heads, keys, width); DeepSeek's is narrower than a key.
        attention_mask: Booleans (batch or 1, 1, tokens, keys), true where a position attends to a key. None: in a
            causal layer a position attends to itself and to those before it, in any other layer to all.
        dropout: Probability of dropping a weight.
        scaling: Factor on the scores; None: 1 / sqrt(dim).
        options: Further arguments of the fused kernel.

    Returns:
        (batch, tokens, heads, width), and no weights.
    """
    if is_plain_softmax(dropout, options) and _is_usual(query, key, attention_mask):
        factor = query.shape[-1] ** -0.5 if scaling is None else scaling
        if _is_causal(module, attention_mask, options):
            return _causal_products(query, key, value, factor), None
        if query.dtype == torch.bfloat16:
            return _masked_products(query, key, value, attention_mask, factor), None
    fused: tuple[torch.Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
    )
    return fused


def is_plain_softmax(dropout: float, options: Mapping[str, Any]) -> bool:
    """Return whether a layer's attention is two products with a softmax between them, and nothing else."""
    return not dropout and all(options.get(name) is None for name in ("softcap", "position_bias", "cache"))


def saved_scores(tokens: int) -> int:
    """Return how many scores of a text a head of a causal layer saves for the backward pass."""
    return causal_scores(tokens) if tokens <= LONGEST else 0


def _is_usual(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None) -> bool:
    """Return whether there are several tokens, not too many, under a mask of the usual form."""
    tokens, keys = query.shape[2], key.shape[2]
    if tokens == 1 or tokens * keys > LONGEST**2:
        return False
    if mask is None:
        return tokens == keys
    return mask.dtype == torch.bool and mask.shape[1:] == (1, tokens, keys)


def _is_causal(module: torch.nn.Module, mask: torch.Tensor | None, options: Mapping[str, Any]) -> bool:
    """Return whether each position attends to itself and to all before it, with nothing padded."""
    if mask is not None:
        return torch.equal(mask, causal_mask(*mask.shape[2:]).expand_as(mask))
    asked = options.get("is_causal")
    return bool(getattr(module, "is_causal", True) if asked is None else asked)


def _causal_products(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """Return causal attention (batch, tokens, heads, width); the arguments are those of `cpu_attention`."""
    batch, heads, tokens, dim = query.shape
    keys, values = _by_pair(key), _by_pair(value)
    mixed = causal_attention(query.reshape(len(keys), -1, tokens, dim), keys, values, scaling)
    return mixed.view(batch, heads, tokens, -1).transpose(1, 2)


def _masked_products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    """Return attention under any mask (batch, tokens, heads, width); the arguments are those of `cpu_attention`."""
    batch, heads, tokens, dim = query.shape
    keys, values = _by_pair(key), _by_pair(value)
    queries = query.reshape(len(keys), -1, dim)  # the heads that share keys, one below the other
    scores = torch.bmm(queries * scaling, keys.transpose(1, 2))
    if mask is not None:
        hidden = torch.zeros(mask.shape, dtype=query.dtype)
        hidden.masked_fill_(~mask, torch.finfo(query.dtype).min)  # finite: a row may be hidden whole
        scores.view(batch, heads, tokens, -1).add_(hidden)
    mixed = torch.bmm(torch.softmax(scores, dim=-1), values)
    return mixed.view(batch, heads, tokens, -1).transpose(1, 2)


def _by_pair(part: torch.Tensor) -> torch.Tensor:
    """Return keys or values (batch * key heads, keys, dim): one row for each pair of a text and a key head."""
    return part.reshape(-1, *part.shape[2:])


@lru_cache(maxsize=64)
def causal_mask(tokens: int, keys: int) -> torch.Tensor:
    """Return the mask of the last tokens of a text over all its keys (1, 1, tokens, keys)."""
    with torch.inference_mode(False):
        return torch.ones(1, 1, tokens, keys, dtype=torch.bool).tril(keys - tokens)


def causal_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """Return softmax(scaling * query key^T) value, where a position attends to itself and to all before it.

    Args:
        query: (pairs, group, tokens, dim): the heads that share the keys of one pair.
        key: (pairs, keys, dim); the last keys are those of the tokens themselves.
        value: (pairs, keys, width).
        scaling: Factor on the scores.

    Returns:
        (pairs, group, tokens, width).
    """
    result: torch.Tensor = _CausalAttention.apply(query, key, value, scaling)  # type: ignore[no-untyped-call]
    return result


def causal_scores(tokens: int) -> int:
    """Return how many scores of a text are computed.

    >>> causal_scores(65)
    4161
    """
    return sum((block.stop - block.start) * visible for block, visible in _blocks(tokens, tokens))


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        pairs, group, tokens, _ = query.shape
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        saved: list[torch.Tensor] = []
        for block, visible in _blocks(tokens, key.shape[1]):
            queries = _rows(query, block)
            scores = _product(queries, key[:, :visible].transpose(1, 2), scaling)
            own = block.stop - block.start
            scores.view(pairs, group, own, visible)[..., visible - own :].add_(_causal_bias(own, query.dtype))
            # In float32: in bfloat16 the softmax takes twice as long, unless the keys are a multiple of 32.
            weights = torch.softmax(scores, dim=-1, dtype=_exact(scores.dtype)).to(scores.dtype)
            out[:, :, block] = torch.bmm(weights, value[:, :visible]).view(pairs, group, own, -1)
            saved += [queries, weights]
        ctx.save_for_backward(key, value, *saved)
        ctx.scaling = scaling
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        key, value, *saved = ctx.saved_tensors
        pairs, group, tokens, _ = gradient.shape
        query_grad = gradient.new_empty(pairs, group, tokens, key.shape[-1])
        key_grad, value_grad = torch.zeros_like(key), torch.zeros_like(value)
        for i, (block, visible) in enumerate(_blocks(tokens, key.shape[1])):
            queries, weights = saved[2 * i : 2 * i + 2]
            rows = _rows(gradient, block)
            value_grad[:, :visible].baddbmm_(weights.transpose(1, 2), rows)
            weights_grad = torch.bmm(rows, value[:, :visible].transpose(1, 2))
            scores_grad = torch.ops.aten._softmax_backward_data(weights_grad, weights, -1, weights.dtype)
            found = _product(scores_grad, key[:, :visible], ctx.scaling)
            query_grad[:, :, block] = found.view(pairs, group, block.stop - block.start, -1)
            key_grad[:, :visible].baddbmm_(scores_grad.transpose(1, 2), queries, alpha=ctx.scaling)
        return query_grad, key_grad, value_grad, None


def _blocks(tokens: int, keys: int) -> Iterator[tuple[slice, int]]:
    """Yield each block of positions with the number of keys that its last position attends to."""
    for start in range(0, tokens, _BLOCK):
        stop = min(start + _BLOCK, tokens)
        yield slice(start, stop), keys - tokens + stop


def _rows(heads: torch.Tensor, block: slice) -> torch.Tensor:
    """Return a block of positions (pairs, group * positions, dim), the heads of a pair one below the other."""
    return heads[:, :, block].reshape(heads.shape[0], -1, heads.shape[-1])


def _product(left: torch.Tensor, right: torch.Tensor, factor: float) -> torch.Tensor:
    return torch.baddbmm(left.new_empty(1, 1, 1), left, right, beta=0, alpha=factor)


def _exact(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


@lru_cache(maxsize=8)
def _causal_bias(tokens: int, dtype: torch.dtype) -> torch.Tensor:
    """Return (tokens, tokens): the lowest finite number where the key comes after the query, else 0."""
    with torch.inference_mode(False):
        return torch.full((tokens, tokens), torch.finfo(dtype).min, dtype=dtype).triu(1)


AttentionInterface.register(NAME, cpu_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
