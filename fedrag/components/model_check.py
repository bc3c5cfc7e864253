"""Tries the base models of a scenario before anything is trained, and remembers those that passed.

What passed is noted below `FEDRAG_HOME/checks`, by all that the trial depends on: the model's identity, the versions of
the libraries, the machine's number format and the settings that the trial reads.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from fedrag import __version__
from fedrag.components.finding import Finding
from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import ComponentSpec
from fedrag.config.rag_settings import RagConfig
from fedrag.config.scenario import Config
from fedrag.errors import FedragError, ModelError
from fedrag.files import write_json
from fedrag.types import Component, ShippedComponent
from fedrag.weights.store import FetchedModel, fedrag_home

_LIBRARIES = ("torch", "transformers", "peft", "sentence-transformers", "tokenizers")


def check_model(config: Config, key: Component, component: ComponentSpec, model: FetchedModel) -> Iterator[Finding]:
    """Try a base model as a scenario uses it, whether or not it passed before; note it if it passes.

    Args:
        config: The scenario, which names this model.
        key: The model's key in [models].
        component: The component of that name.
        model: The model.
    """
    from fedrag.weights.model_files import refuse_adapters  # imports transformers

    steps = component.steps()
    try:
        refuse_adapters(model.folder)
        steps.check_base(config, model)
        yield Finding("settings", True, "the scenario's settings fit the model")
    except FedragError as error:
        yield Finding("settings", False, str(error))
        return
    all_ok = True
    for finding in steps.try_base(config, model):
        all_ok = all_ok and finding.is_ok
        yield finding
    note = _note_path(config, key, model)
    if all_ok and note:
        _note(note, model)


def require_tried(config: Config, key: Component, component: ComponentSpec, model: FetchedModel) -> None:
    """Refuse a base model that cannot do what the scenario asks of it; one that passed before is not tried again.

    Raises:
        ModelError: What is wrong, and what to do.
    """
    if _passed_before(config, key, model):
        return
    wrong = [f for f in check_model(config, key, component, model) if not f.is_ok]
    if wrong:
        raise ModelError(f"{model.name}: " + "; ".join(f"{finding.name}: {finding.text}" for finding in wrong))


def wrong_by_itself(model: FetchedModel) -> list[Finding]:
    """Return what is wrong with a fetched model, whatever the scenario; nothing is tried again that passed before.

    The settings are the defaults, with prompts that fit the model's positions.
    """
    key = key_of(model)
    config = default_config(model, fits=True)
    if _passed_before(config, key, model):
        return []
    return [finding for finding in check_model(config, key, SHIPPED[key], model) if not finding.is_ok]


def key_of(model: FetchedModel) -> ShippedComponent:
    """Return the key in [models] under which a model can be used."""
    return "retriever" if model.kind == "encoder" else "generator"


def default_config(model: FetchedModel, *, fits: bool = False) -> Config:
    """Return a scenario of defaults that uses a model.

    Args:
        model: The model.
        fits: Shorten prompts to the model's positions.
    """
    rag: dict[str, int] = {}
    if fits and model.kind != "encoder":
        from fedrag.models.generator import longest_text  # takes seconds, which the help text of a verb can do without

        limit = longest_text(model)
        if limit is not None:
            defaults = RagConfig()
            rag["prompt_tokens"] = max(1, min(defaults.prompt_tokens, limit - defaults.answer_tokens))
    models = {key_of(model): model.name}
    return Config.from_dict({"name": "check", "data": {"sites": "."}, "models": models, "rag": rag})


def _passed_before(config: Config, key: Component, model: FetchedModel) -> bool:
    """Return whether it is noted that a model passed; an adapter may have been put beside it since."""
    note = _note_path(config, key, model)
    return note is not None and note.is_file() and not any(model.folder.rglob("adapter_config.json"))


def _note_path(config: Config, key: Component, model: FetchedModel) -> Path | None:
    """Return where it is noted that a model passed; None where its files cannot be read, so that it is tried."""
    from fedrag.weights.compute import best_device, number_format  # torch: a site's node does without
    from fedrag.weights.identity import identity_of  # as above

    try:
        identity = identity_of(model)
    except ModelError:
        return None
    trained = {"dropout", "lora", "adapter_from", "generation_settings", "weights"}
    trained |= {"query_prompt", "passage_prompt", "similarity", "truncate_dim"}
    facts = {
        "model": asdict(identity),
        "versions": [__version__, *(version(name) for name in _LIBRARIES)],
        "format": [number_format(config.models.dtype_of(key), best_device()), best_device()],
        "rag": config.rag.model_dump(mode="json", exclude={"date", "search"}),
        "settings": getattr(config, key).model_dump(mode="json", include=trained) if hasattr(config, key) else {},
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return fedrag_home() / "checks" / f"{digest[:32]}.json"


def _note(path: Path, model: FetchedModel) -> None:
    if os.access(fedrag_home(), os.W_OK):  # where models are only read, they are tried again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"model": model.name, "passed": True})
