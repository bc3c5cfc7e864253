"""The plain forward pass: a batch of padded rows, and the logits at the answer positions alone.

The output head over whole prompts would be a fifth of all work.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from fedrag.models.cache_keyword import CACHE
from fedrag.passes.batches import padded
from fedrag.types import Example


def causal_logits(
    model: PreTrainedModel,
    pad_id: int,
    batch: Sequence[Example],
    cache: Any = None,
    cache_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the logits (tokens, vocabulary) of a causal model at the answer positions, example after example.

    Args:
        model: The model.
        pad_id: The token that pads rows.
        batch: The examples, without the tokens that are in the cache.
        cache: Keys and values of the tokens that come before.
        cache_mask: Which places of the cache are no padding (batch, tokens); None: there is no cache.
    """
    # The last answer token predicts nothing that is asked for. Rows are padded on the right: causal attention never
    # reaches the padding, so it needs no mask.
    inputs = [example.prompt + example.answer[:-1] for example in batch]
    width = max(map(len, inputs))
    ids = torch.tensor([padded(row, width, pad_id) for row in inputs], device=model.device)
    options: dict[str, Any] = {CACHE: cache}
    if cache_mask is not None:
        own = torch.arange(width, device=model.device)
        options["position_ids"] = cache_mask.sum(dim=1, keepdim=True) + own
        options["attention_mask"] = torch.cat([cache_mask, torch.ones_like(ids)], dim=1)
    positions = _answer_positions(batch, width).to(model.device)
    if supports_logits_to_keep(model):
        options["logits_to_keep"] = positions
    logits: torch.Tensor = model(input_ids=ids, use_cache=cache is not None, **options).logits
    return logits if "logits_to_keep" in options else logits[positions]


def seq2seq_logits(model: PreTrainedModel, pad_id: int, start_id: int, batch: Sequence[Example]) -> torch.Tensor:
    """Return the logits (tokens, vocabulary) of an encoder-decoder model at the answer positions.

    Args:
        model: The model.
        pad_id: The token that pads rows.
        start_id: The token from which the decoder starts.
        batch: Prompts and answers.
    """
    device = model.device
    width = max(len(example.prompt) for example in batch)
    ids = [padded(example.prompt, width, pad_id) for example in batch]
    mask = [padded([1] * len(example.prompt), width, 0) for example in batch]
    longest = max(len(example.answer) for example in batch)
    decoder = [padded([start_id, *example.answer[:-1]], longest, pad_id) for example in batch]
    logits: torch.Tensor = model(
        input_ids=torch.tensor(ids, device=device),
        attention_mask=torch.tensor(mask, device=device),
        decoder_input_ids=torch.tensor(decoder, device=device),
        use_cache=False,
    ).logits
    return torch.cat([logits[i, : len(example.answer)] for i, example in enumerate(batch)])


def supports_logits_to_keep(model: PreTrainedModel) -> bool:
    """Return whether a model can compute the logits of chosen positions alone; all but a few causal ones can."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def _answer_positions(batch: Sequence[Example], width: int) -> torch.Tensor:
    """Return the positions that predict answer tokens, as booleans (rows, width); rows are padded on the right."""
    positions = torch.zeros(len(batch), width, dtype=torch.bool)
    for row, example in enumerate(batch):
        first = len(example.prompt) - 1
        positions[row, first : first + len(example.answer)] = True
    return positions
