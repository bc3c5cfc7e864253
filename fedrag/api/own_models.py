"""Models that a program holds in memory, put where fedrag finds models by name."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel

from fedrag.errors import ModelError
from fedrag.weights.fetch import fetch_models
from fedrag.weights.model_files import check_model_folder
from fedrag.weights.store import fedrag_home, find_model, hash_tensors

_NAME_LENGTH = 12


def generator_name(generator: Any) -> str:
    """Return the name of a generator that is fetched, or of a copy of one that is in memory.

    Args:
        generator: The name of a fetched model; a `transformers` pipeline of text generation; or a model and its
            tokenizer.

    Raises:
        ModelError: It is none of these, is not fetched, or cannot be a generator.
    """
    if isinstance(generator, str | Path):
        return find_model(str(generator)).name
    model, tokenizer = _parts_of(generator)
    if not isinstance(model, PreTrainedModel) or not hasattr(tokenizer, "save_pretrained"):
        raise ModelError(
            "generator: expected the name of a fetched model, a transformers pipeline, or (model, tokenizer), not "
            f"{type(generator).__name__}; an adapter is first merged into its model: merge_and_unload()"
        )

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return _kept(save, "generator")


def retriever_name(retriever: Any) -> str:
    """Return the name of a retriever that is fetched, or of a copy of one that is in memory.

    Args:
        retriever: The name of a fetched model, or a `SentenceTransformer`.

    Raises:
        ModelError: It is none of these, is not fetched, or cannot be a retriever.
    """
    if isinstance(retriever, str | Path):
        return find_model(str(retriever)).name
    if not isinstance(retriever, SentenceTransformer):
        raise ModelError(
            f"retriever: expected the name of a fetched model or a SentenceTransformer, not {type(retriever).__name__}"
        )
    return _kept(lambda folder: retriever.save(str(folder), create_model_card=False), "retriever")


def _parts_of(generator: Any) -> tuple[Any, Any]:
    """Return a model and its tokenizer, from a pair or from a pipeline."""
    if isinstance(generator, tuple) and len(generator) == 2:
        return generator[0], generator[1]
    return getattr(generator, "model", None), getattr(generator, "tokenizer", None)


def _kept(save: Callable[[Path], object], argument: str) -> str:
    """Fetch a model from the folder that it saves itself into; the same weights are kept once.

    A copy on disk is what other processes load, and what a run can be resumed with.
    """
    models = fedrag_home() / "models"
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=".own-") as folder:
        save(Path(folder))
        try:
            check_model_folder(Path(folder), None)
            name = f"own-{argument}-{hash_tensors(Path(folder))[:_NAME_LENGTH]}"
            return fetch_models([folder], "path", save_as=name)[0].name
        except ModelError as error:
            raise ModelError(f"{argument}: {str(error).replace(folder, 'the model')}") from error
