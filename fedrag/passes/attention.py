"""Attention for CPUs: as plain batched products, and along the branches of a tree.

torch's fused attention for CPUs spends its time in small blocks. For texts of ordinary length the scores fit into
memory, and two batched products with a softmax between them run at the processor's full speed: where a text sees only
what comes before, in any number format (`fedrag.passes.causal_attention`), and in bfloat16 behind other masks, too.
What is unusual (a single new token, very long texts, dropout on the weights) goes to the fused kernel as before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from fedrag.passes.causal_attention import causal_attention, causal_scores
from fedrag.passes.tree import tree_read

NAME = "cpu_attention"
LONGEST = 768  # tokens; the scores of longer texts cost more memory than they save time

_Attend = Callable[..., tuple[torch.Tensor, None]]


def use_cpu_attention(model: PreTrainedModel) -> None:
    """Let a model use `cpu_attention` where it computes on a CPU and would use the fused kernel."""
    if model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


def is_in_products(model: PreTrainedModel) -> bool:
    """Return whether a model's attention is computed as products."""
    causal = not model.config.is_encoder_decoder
    return model.config._attn_implementation == NAME and (causal or model.dtype == torch.bfloat16)


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
    """Return softmax(scaling * query key^T) value, where each position sees what the mask or the tree lets it see.

    Args:
        module: The attention layer.
        query: (batch, heads, tokens, dim).
        key: (batch, key heads, keys, dim); each serves heads / key heads neighbouring heads. Keys of what was read
            before come first, so that there may be more than tokens.
        value: As key.
        attention_mask: Booleans (batch or 1, 1, tokens, keys), true where a position is seen. None: in a causal
            layer a position sees itself and those before it, in any other layer all. Not looked at where a tree is
            read (`fedrag.passes.tree`).
        dropout: Probability of leaving a weight out.
        scaling: Factor on the scores; None: 1 / sqrt(dim).
        options: What else the fused kernel would be told.

    Returns:
        (batch, tokens, heads, dim), and no weights.
    """
    usual = not dropout and all(options.get(name) is None for name in ("softcap", "position_bias", "cache"))
    attend: _Attend = partial(sdpa_attention_forward, module, dropout=dropout, scaling=scaling, **options)
    tree = tree_read()
    if usual:
        asked = options.get("is_causal")
        causal = getattr(module, "is_causal", True) if asked is None else asked
        attend = partial(product_attention, scaling=scaling, causal=causal, otherwise=attend)
    if tree is None:
        return attend(query, key, value, attention_mask)
    if not usual:
        return attend(query, key, value, tree.mask()[None, None])
    parts = [torch.split(part, tree.lengths, dim=2) for part in (query, key, value)]
    mixed = []
    for number, segment in enumerate(tree.segments):
        keys, values = (torch.cat([part[i] for i in (*segment.before, number)], dim=2) for part in parts[1:])
        mask = _seen(len(segment.tokens), keys.shape[2]) if segment.before else None
        mixed.append(attend(parts[0][number], keys, values, mask)[0])
    return torch.cat(mixed, dim=1), None


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
    return torch.equal(mask, _seen(*mask.shape[2:]).expand_as(mask))


@lru_cache(maxsize=64)
def _seen(tokens: int, keys: int) -> torch.Tensor:
    """Return what the last tokens of a text see of it (1, 1, tokens, keys)."""
    with torch.inference_mode(False):
        return torch.ones(1, 1, tokens, keys, dtype=torch.bool).tril(keys - tokens)


AttentionInterface.register(NAME, cpu_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
