"""Collects what a run's result depends on: versions, hashes of models and data, threads, number formats."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedrag import __version__
from fedrag.config.scenario import Config, SimulationConfig
from fedrag.data.site_folder import hash_site, site_name
from fedrag.types import COMPONENTS, Component
from fedrag.weights.compute import best_device, cpu_count, number_format
from fedrag.weights.store import FetchedModel


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
        "models": {c: {"name": m.name, "tensors_sha256": m.tensors_sha256} for c, m in sorted(models.items())},
        "data": {site_name(folder): hash_site(folder) for folder in folders},
        "threads": client_threads(config.simulation),
        "dtype": {key: number_format(config.models.dtype_of(key), best_device()) for key in COMPONENTS},
        "machine": {"processor": platform.machine(), "device": best_device()},
    }


def client_threads(simulation: SimulationConfig) -> int:
    """Return the torch threads of a client's process."""
    return simulation.threads or (simulation.cpus_per_actor if simulation.grid == "ray" else cpu_count())
