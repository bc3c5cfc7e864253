"""The base models that a scenario uses, and the hashes of their tensors; it loads none of them."""

from __future__ import annotations

from fedrag.config.scenario import Config
from fedrag.config.schedule import trained_components
from fedrag.types import Component
from fedrag.weights.store import FetchedModel, find_model


def required_models(config: Config) -> dict[Component, FetchedModel]:
    """Return the fetched models that a scenario uses.

    Raises:
        ModelError: One is not fetched.
    """
    models: dict[Component, FetchedModel] = {"retriever": find_model(config.models.retriever)}
    if needs_generator(config):
        models["generator"] = find_model(config.models.generator)
    return models


def needs_generator(config: Config) -> bool:
    """Return whether a scenario trains, scores with, or generates with the generator."""
    trains = "generator" in trained_components(config.federation)
    generates = config.evaluation.split != "none" and config.evaluation.generate
    scores = "retriever" in trained_components(config.federation) and config.retriever.uses_lsr
    return trains or generates or scores


def base_tensor_hashes(config: Config) -> dict[Component, str]:
    """Return the tensor hash of each base model that a site's rounds use, as it was fetched here.

    Raises:
        ModelError: One is not fetched.
    """
    hashes: dict[Component, str] = {"retriever": find_model(config.models.retriever).tensors_sha256}
    if "generator" in trained_components(config.federation) or config.retriever.uses_lsr:
        hashes["generator"] = find_model(config.models.generator).tensors_sha256
    return hashes
