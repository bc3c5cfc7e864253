"""What a scenario says of an encoder, written into it: its prompts, its similarity and the dimensions that are kept."""

from __future__ import annotations

import re
from typing import Literal, cast

import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from fedrag.config.training_settings import RetrieverConfig
from fedrag.errors import ConfigError, ModelError

Similarity = Literal["cosine", "dot"]
Task = Literal["query", "document"]

_PASSAGE_PROMPTS = ("document", "passage", "corpus")
_FAMILIES = {
    r"(?:^|[/_-])e5-(?:small|base|large)(?!.*instruct)": ("query: ", "passage: "),
    r"(?:^|[/_-])bge-(?:small|base|large)-en": ("Represent this sentence for searching relevant passages: ", ""),
    r"(?:^|[/_-])bge-(?:small|base|large)-zh": ("为这个句子生成表示以用于检索相关文章：", ""),
}
"""The prompts with which models were trained, by their names, where their files often do not hold them."""


def apply_settings(encoder: SentenceTransformer, config: RetrieverConfig, name: str) -> None:
    """Let an encoder have the prompts, the similarity and the dimensions of a scenario; export keeps them.

    Args:
        encoder: As it was loaded.
        config: The scenario's settings.
        name: The model's name, for an error.

    Raises:
        ModelError: The model compares vectors otherwise than by cosine or dot product.
        ConfigError: More dimensions are to be kept than there are.
    """
    chosen = {"query": config.query_prompt, "document": config.passage_prompt}
    encoder.prompts = {**own_prompts(encoder), **{key: text for key, text in chosen.items() if text != "auto"}}
    if config.similarity != "auto":
        encoder.similarity_fn_name = config.similarity
    elif encoder.similarity_fn_name not in ("cosine", "dot"):
        raise ModelError(
            f'compares vectors by {encoder.similarity_fn_name} distance; set retriever.similarity to "cosine" or "dot"'
        )
    dim = encoder.get_embedding_dimension()
    if dim is not None and config.truncate_dim > dim:
        raise ConfigError(f"retriever.truncate_dim = {config.truncate_dim}: vectors of {name} have {dim} dimensions")
    encoder.truncate_dim = config.truncate_dim or None


def own_prompts(encoder: SentenceTransformer) -> dict[str, str]:
    """Return the prompts of a model's files, that of its passages under the name that `encode_document` reads first.

    sentence-transformers sets "document" to nothing where a model has "passage" alone, and then never reads that.
    """
    prompts = dict(cast(dict[str, str], encoder.prompts) or {})
    passages = next((prompts[name] for name in _PASSAGE_PROMPTS if prompts.get(name)), None)
    return prompts if passages is None else prompts | {"document": passages}


def prompt_of(encoder: SentenceTransformer, task: Task) -> str | None:
    """Return the prompt that `encode_query` or `encode_document` puts before a text."""
    names = ("query",) if task == "query" else _PASSAGE_PROMPTS
    prompts = encoder.prompts or {}
    fallback = prompts.get(encoder.default_prompt_name) if encoder.default_prompt_name else None
    return next((prompts[name] for name in names if name in prompts), fallback) or None


def similarity_of(encoder: SentenceTransformer) -> Similarity:
    """Return how an encoder's vectors are compared."""
    return "dot" if encoder.similarity_fn_name == "dot" else "cosine"


def kept(vectors: torch.Tensor, encoder: SentenceTransformer) -> torch.Tensor:
    """Return vectors (texts, dim) as they are compared: truncated, and of unit length where that is by cosine."""
    vectors = vectors[..., : encoder.truncate_dim].float()
    return nn.functional.normalize(vectors, dim=-1) if similarity_of(encoder) == "cosine" else vectors


def known_prompts(name: str) -> tuple[str, str] | None:
    """Return the prompts of questions and passages with which models of a known name were trained.

    >>> known_prompts("intfloat/e5-small-v2")
    ('query: ', 'passage: ')
    """
    return next((prompts for pattern, prompts in _FAMILIES.items() if re.search(pattern, name.lower())), None)
