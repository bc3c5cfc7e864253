"""Copies of an encoder: a frozen one beside one that trains, and one that trains in a shorter number format."""

from __future__ import annotations

import copy

import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import PreTrainedModel

from fedrag.models.attention import use_cpu_attention


def token_embeddings(encoder: SentenceTransformer) -> dict[str, nn.Parameter]:
    """Return the token embeddings of an encoder's transformers, by their names in the encoder."""
    transformers = (module for module in encoder.modules() if isinstance(module, PreTrainedModel))
    weights = {id(weight) for model in transformers for weight in model.get_input_embeddings().parameters()}
    return {name: weight for name, weight in encoder.named_parameters() if id(weight) in weights}


def copy_sharing(encoder: SentenceTransformer, shared: dict[str, nn.Parameter]) -> SentenceTransformer:
    """Return a frozen copy of an encoder that shares some of its weights."""
    return copy.deepcopy(encoder, {id(weight): weight for weight in shared.values()}).requires_grad_(False)


def in_short_format(encoder: SentenceTransformer, dtype: torch.dtype) -> SentenceTransformer:
    """Return a copy of an encoder in another number format."""
    learner = copy.deepcopy(encoder).to(dtype).eval()
    for module in learner.modules():
        if isinstance(module, PreTrainedModel):
            use_cpu_attention(module)
    return learner
