"""Collects what a run's result depends on: versions, hashes of models and data, threads, number formats."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedrag import __version__
from fedrag.config.scenario import Config
from fedrag.data.site_folder import hash_site, site_name
from fedrag.weights.base_models import required_models
from fedrag.weights.compute import best_device, cpu_count, number_format


def collect_facts(config: Config, folders: Sequence[Path]) -> dict[str, Any]:
    """Return what a run's result depends on.

    Args:
        config: The scenario.
        folders: Folders of the sites that take part; none at a coordinator.

    Raises:
        ModelError: A model is not fetched.
        DataError: A site's folder cannot be read.
    """
    models = required_models(config)
    libraries = ["torch", "transformers", "peft", "sentence-transformers", "flwr", "faiss-cpu"]
    if "generator" in models and config.models.generator_dtype == "nf4":
        libraries.append("bitsandbytes")
    threads = config.simulation.threads or (
        config.simulation.cpus_per_actor if config.simulation.grid == "ray" else cpu_count()
    )
    return {
        "fedrag": __version__,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in libraries}},
        "models": {c: {"name": m.name, "tensors_sha256": m.tensors_sha256} for c, m in sorted(models.items())},
        "data": {site_name(folder): hash_site(folder) for folder in folders},
        "threads": threads,
        "dtype": {
            "generator": number_format(config.models.generator_dtype, best_device()),
            "retriever": number_format(config.models.retriever_dtype, best_device()),
        },
        "machine": {"processor": platform.machine(), "device": best_device()},
    }
