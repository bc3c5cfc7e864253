"""Causal attention as plain batched products: on CPUs, in bfloat16, quicker than the fused kernel.

torch's fused attention for CPUs spends its time in small blocks. For prompts of ordinary length the scores fit
into memory, and two batched products with a softmax between them run at the processor's full speed. Whatever is
not plain causal attention (padding on the left, a cache, a sliding window) goes to the fused kernel as before.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "causal_products"
LONGEST = 768  # tokens; the scores of longer texts cost more memory than they save time


def use_products(model: PreTrainedModel) -> None:
    """Let a model use `causal_attention`, where it computes in bfloat16 on a CPU and would use the fused kernel."""
    if model.device.type == "cpu" and model.dtype == torch.bfloat16 and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


def causal_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Return softmax(scaling * query key^T) value, each position seeing itself and those before it.

    Args:
        module: The attention layer.
        query: (batch, heads, tokens, dim).
        key: (batch, key heads, tokens, dim); each serves heads / key heads neighbouring heads.
        value: As key.
        attention_mask: None where attention is plainly causal.
        dropout: Probability of leaving a weight out.
        scaling: Factor on the scores; None: 1 / sqrt(dim).
        options: What else the fused kernel would be told.

    Returns:
        (batch, tokens, heads, dim), and no weights.
    """
    tokens = query.shape[2]
    causal = attention_mask is None and getattr(module, "is_causal", True) and options.get("is_causal") is not False
    unusual = dropout or any(options.get(name) is not None for name in ("softcap", "position_bias", "cache"))
    if not causal or unusual or key.shape[2] != tokens or not 1 < tokens <= LONGEST:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    batch, heads, _, dim = query.shape
    pairs, group = batch * key.shape[1], heads // key.shape[1]
    queries = query.reshape(pairs, group * tokens, dim)  # the heads of one key head, one below the other
    keys, values = key.reshape(pairs, tokens, dim), value.reshape(pairs, tokens, dim)
    factor = dim**-0.5 if scaling is None else scaling
    later = _later(tokens, group, query.dtype)
    scores = torch.baddbmm(later.expand(pairs, -1, -1), queries, keys.transpose(1, 2), alpha=factor)
    mixed = torch.bmm(torch.softmax(scores, dim=-1), values)
    return mixed.view(batch, heads, tokens, dim).transpose(1, 2), None


@lru_cache(maxsize=8)
def _later(tokens: int, group: int, dtype: torch.dtype) -> torch.Tensor:
    """Return (group * tokens, tokens): -inf where the key comes after the query, else 0."""
    with torch.inference_mode(False):
        return torch.full((tokens, tokens), float("-inf"), dtype=dtype).triu(1).repeat(group, 1)


AttentionInterface.register(NAME, causal_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
