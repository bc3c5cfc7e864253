"""What a run depends on: versions, hashes of models and data, threads, number format."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedrag import __version__
from fedrag.config import Config, trained_components
from fedrag.data.site_folder import hash_site, load_site, site_name
from fedrag.errors import ConfigError
from fedrag.models.resident import best_device, cpu_count, generator_dtype
from fedrag.models.store import find_model


def collect_facts(config: Config, folders: Sequence[Path]) -> dict[str, Any]:
    """Return what a run depends on: versions, hashes of models and data, threads, number format.

    Raises:
        ModelError: A model is not fetched, or is of the wrong kind.
        DataError: A site's folder cannot be read.
    """
    for folder in folders:
        load_site(folder)
    models = {"retriever": find_model(config.models.retriever, "encoder")}
    if needs_generator(config):
        models["generator"] = find_model(config.models.generator)
        if models["generator"].kind == "encoder":
            raise ConfigError(f"models.generator = {config.models.generator!r} is an encoder, no language model")
    libraries = ("torch", "transformers", "peft", "sentence-transformers", "flwr", "faiss-cpu")
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
        "dtype": str(generator_dtype(config.models.generator_dtype, best_device())).removeprefix("torch."),
        "machine": {"processor": platform.machine(), "device": best_device()},
    }


def needs_generator(config: Config) -> bool:
    """Return whether a scenario trains, scores with, or generates with the generator."""
    trains = "generator" in trained_components(config.federation)
    generates = config.evaluation.split != "none" and config.evaluation.generate
    scores = "retriever" in trained_components(config.federation) and config.retriever.uses_lsr
    return trains or generates or scores
