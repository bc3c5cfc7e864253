"""Collects what a run's result depends on: versions, hashes of models and data, threads, number formats."""

from __future__ import annotations

import platform
import time
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedrag import __version__
from fedrag.config.run_settings import SimulationConfig
from fedrag.config.scenario import Config
from fedrag.data.site_folder import hash_site, site_name
from fedrag.errors import RunError
from fedrag.runs.run_folder import RunFolder
from fedrag.types import COMPONENTS, IDENTITY_PARTS, Component, ModelIdentity
from fedrag.weights.compute import best_device, cpu_count, number_format
from fedrag.weights.identity import identity_of
from fedrag.weights.store import FetchedModel, find_model


def collect_facts(config: Config, models: Mapping[Component, FetchedModel], folders: Sequence[Path]) -> dict[str, Any]:
    """Return what a run's result depends on.

    Args:
        config: The scenario.
        models: The base models that it uses.
        folders: Folders of the sites that take part; none at a coordinator.

    Raises:
        DataError: A site's folder cannot be read.
    """
    libraries = ["torch", "transformers", "peft", "sentence-transformers", "flwr", "faiss-cpu"]
    if "nf4" in (config.models.dtype_of(key) for key in models):
        libraries.append("bitsandbytes")
    return {
        "fedrag": __version__,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in libraries}},
        "models": {key: model_facts(model) for key, model in sorted(models.items())},
        "data": {site_name(folder): hash_site(folder) for folder in folders},
        "threads": client_threads(config.simulation),
        "dtype": {key: number_format(config.models.dtype_of(key), best_device()) for key in COMPONENTS},
        "machine": {"processor": platform.machine(), "device": best_device()},
    }


def model_facts(model: FetchedModel) -> dict[str, str]:
    """Return what is recorded of a base model: its name, and the hash of each part of its identity."""
    identity = identity_of(model)
    return {"name": model.name, **{f"{part}_sha256": getattr(identity, part) for part in IDENTITY_PARTS}}


def changed_models(recorded: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]) -> str:
    """Return which base models are not those that were recorded, and in which parts; "" where all are the same.

    What an earlier version did not record is not compared.

    >>> recorded = {"generator": {"name": "a/b", "tensors_sha256": "0", "template_sha256": "1"}}
    >>> changed_models(recorded, {"generator": {"name": "a/b", "tensors_sha256": "0", "template_sha256": "2"}})
    'generator (chat template)'
    """
    changed = []
    for key in sorted({*recorded, *now}):
        before, after = recorded.get(key, {}), now.get(key, {})
        if not before or not after or before["name"] != after["name"]:
            changed.append(key)
        elif words := _identity(before, before).differences(_identity(after, before)):
            changed.append(f"{key} ({', '.join(words)})")
    return ", ".join(changed)


def _identity(facts: Mapping[str, str], recorded: Mapping[str, str]) -> ModelIdentity:
    """Return an identity of the parts that were recorded."""
    return ModelIdentity(**{p: facts.get(f"{p}_sha256", "") for p in IDENTITY_PARTS if f"{p}_sha256" in recorded})


def require_same_models(run: RunFolder, keys: Collection[Component] = COMPONENTS) -> None:
    """Refuse to use what a run trained with other base models than it was trained with.

    Args:
        run: The run.
        keys: The base models that are to be used, by their keys in [models].

    Raises:
        RunError: One is another.
        ModelError: One is not fetched, or cannot be read.
    """
    recorded = {key: told for key, told in run.facts.get("models", {}).items() if key in keys}
    now = {key: model_facts(find_model(told["name"])) for key, told in recorded.items()}
    if changed := changed_models(recorded, now):
        raise RunError(
            f"{run.path}: its models changed since it was trained: {changed}; fetch again what it was trained with"
        )


def client_threads(simulation: SimulationConfig) -> int:
    """Return the torch threads of a client's process."""
    return simulation.threads or (simulation.cpus_per_actor if simulation.grid == "ray" else cpu_count())
