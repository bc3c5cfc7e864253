"""The forward pass without any art: a batch of padded rows, and the logits at the answer positions alone.

A language model's head over a whole prompt would be a fifth of all work.
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
    memory: Any = None,
    real: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the logits (tokens, vocabulary) of a causal model at the answer positions, example after example.

    Args:
        model: The model.
        pad_id: Token that fills the rows on the right.
        batch: What is left to read.
        memory: Keys and values of what comes before.
        real: Which of those are no padding (batch, tokens); None: all.
    """
    # The last answer token predicts nothing that is asked for. On the right, padding comes after every
    # real token: causal attention never sees it, and no mask is needed.
    inputs = [example.prompt + example.answer[:-1] for example in batch]
    width = max(map(len, inputs))
    ids = torch.tensor([padded(row, width, pad_id) for row in inputs], device=model.device)
    given: dict[str, Any] = {CACHE: memory}
    if real is not None:
        own = torch.arange(width, device=model.device)
        given["position_ids"] = real.sum(dim=1, keepdim=True) + own
        given["attention_mask"] = torch.cat([real, torch.ones_like(ids)], dim=1)
    kept = _answer_positions(batch, width).to(model.device)
    if keeps_logits(model):
        given["logits_to_keep"] = kept
    logits: torch.Tensor = model(input_ids=ids, use_cache=memory is not None, **given).logits
    return logits if "logits_to_keep" in given else logits[kept]


def seq2seq_logits(model: PreTrainedModel, pad_id: int, batch: Sequence[Example]) -> torch.Tensor:
    """Return the logits (tokens, vocabulary) of an encoder-decoder model at the answer positions."""
    device = model.device
    width = max(len(example.prompt) for example in batch)
    ids = [padded(example.prompt, width, pad_id) for example in batch]
    mask = [padded([1] * len(example.prompt), width, 0) for example in batch]
    start = model.config.decoder_start_token_id
    longest = max(len(example.answer) for example in batch)
    decoder = [padded([start, *example.answer[:-1]], longest, pad_id) for example in batch]
    logits: torch.Tensor = model(
        input_ids=torch.tensor(ids, device=device),
        attention_mask=torch.tensor(mask, device=device),
        decoder_input_ids=torch.tensor(decoder, device=device),
        use_cache=False,
    ).logits
    return torch.cat([logits[i, : len(example.answer)] for i, example in enumerate(batch)])


def keeps_logits(model: PreTrainedModel) -> bool:
    """Return whether a model can be told at which positions it is asked; all but a few causal ones can."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def _answer_positions(batch: Sequence[Example], width: int) -> torch.Tensor:
    """Return where answer tokens are predicted in rows that are padded on the right, (rows, width) of booleans."""
    kept = torch.zeros(len(batch), width, dtype=torch.bool)
    for row, example in enumerate(batch):
        first = len(example.prompt) - 1
        kept[row, first : first + len(example.answer)] = True
    return kept
