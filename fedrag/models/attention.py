"""Attention as plain batched products: on CPUs, in bfloat16, quicker than the fused kernel.

torch's fused attention for CPUs spends its time in small blocks. For texts of ordinary length the scores fit into
memory, and two batched products with a softmax between them run at the processor's full speed. What is unusual
(a single new token, very long texts, dropout on the weights) goes to the fused kernel as before.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "attention_products"
LONGEST = 768  # tokens; the scores of longer texts cost more memory than they save time


def use_products(model: PreTrainedModel) -> None:
    """Let a model use `product_attention`, where it computes in bfloat16 on a CPU and would use the fused kernel."""
    if model.device.type == "cpu" and model.dtype == torch.bfloat16 and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


def product_attention(
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
    batch, heads, tokens, dim = query.shape
    seen = key.shape[2]
    unusual = dropout or any(options.get(name) is not None for name in ("softcap", "position_bias", "cache"))
    if unusual or tokens == 1 or tokens * seen > LONGEST**2 or not _is_usual(attention_mask, tokens, seen):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    key_heads = key.shape[1]
    pairs, group = batch * key_heads, heads // key_heads
    queries = query.reshape(pairs, group * tokens, dim)  # the heads of one key head, one below the other
    keys, values = key.reshape(pairs, seen, dim), value.reshape(pairs, seen, dim)
    factor = dim**-0.5 if scaling is None else scaling
    asked = options.get("is_causal")
    causal = attention_mask is None and (getattr(module, "is_causal", True) if asked is None else asked)
    if causal:
        hidden = _later(tokens, group, query.dtype).expand(pairs, -1, -1)
        scores = torch.baddbmm(hidden, queries, keys.transpose(1, 2), alpha=factor)
    elif attention_mask is None:
        scores = torch.bmm(queries * factor, keys.transpose(1, 2))
    else:
        hidden = torch.zeros(attention_mask.shape, dtype=query.dtype).masked_fill_(
            ~attention_mask, _lowest(query.dtype)
        )
        scores = torch.bmm(queries * factor, keys.transpose(1, 2))
        scores.view(batch, heads, tokens, seen).add_(hidden)
    mixed = torch.bmm(torch.softmax(scores, dim=-1), values)
    return mixed.view(batch, heads, tokens, dim).transpose(1, 2), None


def _is_usual(attention_mask: torch.Tensor | None, tokens: int, seen: int) -> bool:
    if attention_mask is None:
        return tokens == seen
    return attention_mask.dtype == torch.bool and attention_mask.shape[1:] == (1, tokens, seen)


def _lowest(dtype: torch.dtype) -> float:
    """Return what hides a score; finite, so that a row that sees nothing does not become NaN."""
    return torch.finfo(dtype).min


@lru_cache(maxsize=8)
def _later(tokens: int, group: int, dtype: torch.dtype) -> torch.Tensor:
    """Return (group * tokens, tokens): the lowest number where the key comes after the query, else 0."""
    with torch.inference_mode(False):
        return torch.full((tokens, tokens), _lowest(dtype), dtype=dtype).triu(1).repeat(group, 1)


AttentionInterface.register(NAME, product_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
