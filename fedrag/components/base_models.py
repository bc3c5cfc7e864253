"""Which base models a scenario uses, and what identifies them. Nothing here loads one."""

from __future__ import annotations

from collections.abc import Collection

from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components, find_component
from fedrag.config.scenario import Config
from fedrag.config.schedule import trained_components
from fedrag.types import COMPONENTS, Component, ModelIdentity
from fedrag.weights.store import FetchedModel, find_model


def required_models(config: Config, components: Components = SHIPPED) -> dict[Component, FetchedModel]:
    """Return the fetched models that a scenario uses, by their keys in [models].

    Raises:
        ModelError: One is not fetched.
        ConfigError: The scenario trains a component that is not known.
    """
    generates = config.evaluation.split != "none" and config.evaluation.generate
    measured = [key for key, needed in (("retriever", config.retrieves), ("generator", generates)) if needed]
    used = {*_in_rounds(config, components), *measured}
    return {key: find_model(config.models.name_of(key)) for key in _retriever_first(used)}


def base_tensor_hashes(config: Config, components: Components = SHIPPED) -> dict[Component, str]:
    """Return the tensor hash of each base model that a site's rounds use, as it was fetched here.

    Raises:
        ModelError: One is not fetched.
        ConfigError: The scenario trains a component that is not known.
    """
    used = _in_rounds(config, components)
    return {key: find_model(config.models.name_of(key)).tensors_sha256 for key in _retriever_first(used)}


def base_identities(config: Config, components: Components = SHIPPED) -> dict[Component, ModelIdentity]:
    """Return the identity of each base model that a site's rounds use, as it lies here now.

    Raises:
        ModelError: One is not fetched, or its tokenizer or configuration cannot be read.
        ConfigError: The scenario trains a component that is not known.
    """
    from fedrag.weights.identity import identity_of  # it imports transformers, which a site's node does without

    used = _in_rounds(config, components)
    return {key: identity_of(find_model(config.models.name_of(key))) for key in _retriever_first(used)}


def _in_rounds(config: Config, components: Components) -> set[str]:
    trained = [find_component(components, name) for name in trained_components(config.federation)]
    used = {key for component in trained for key in component.base_models(config)}
    return used | set(COMPONENTS) if config.iterates else used


def _retriever_first(keys: Collection[str]) -> list[str]:
    """Order base models as a question meets them."""
    return sorted(keys, reverse=True)
