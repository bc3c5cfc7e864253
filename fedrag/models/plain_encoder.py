"""Encoders as plain sentence-transformers folders: `encode()` alone gives the vectors that fedrag searches with.

Other libraries load a folder and call `encode()`: they name no task and no prompt, and ask for no normalisation. So
what `encode_query` or `encode_document` adds is made part of the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize
from torch import nn


def make_plain(encoder: SentenceTransformer) -> SentenceTransformer:
    """Let an encoder's own modules cut and normalise its vectors, as its settings ask for, and return it.

    sentence-transformers does not save `truncate_dim`. Vectors that are compared by cosine get unit length, since a
    vector store may compare them by their dot product.
    """
    if encoder.truncate_dim is not None:
        kept, encoder.truncate_dim = encoder.truncate_dim, None
        encoder.append(_first_dimensions(cast(int, encoder.get_embedding_dimension()), kept))
    if encoder.similarity_fn_name == "cosine" and not isinstance(encoder[-1], Normalize):
        encoder.append(Normalize())
    return encoder


def save_side(encoder: SentenceTransformer, prompt: str | None, folder: Path) -> None:
    """Write an encoder for one side, whose prompt `encode()` puts before every text.

    Args:
        encoder: The encoder, without an adapter; it keeps its own prompts.
        prompt: The side's prompt, or None.
        folder: The new folder.
    """
    encoder.default_prompt_name = None
    if prompt:
        named = {text: name for name, text in reversed(encoder.prompts.items())}
        encoder.default_prompt_name = named.setdefault(prompt, "default")
        encoder.prompts = {**encoder.prompts, named[prompt]: prompt}
    encoder.save(str(folder), create_model_card=False)


def _first_dimensions(full: int, kept: int) -> Dense:
    """Return a linear layer that keeps the first dimensions of a vector."""
    layer = Dense(full, kept, bias=False, activation_function=nn.Identity())
    with torch.no_grad():
        layer.linear.weight.copy_(torch.eye(kept, full))
    return layer
