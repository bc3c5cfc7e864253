"""The life of a model in fedrag: it is fetched, tried, trained for a round by two sites, averaged and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_federation import federate, tiny_config, write_small_sites

from fedrag.components.model_check import check_model
from fedrag.components.shipped import SHIPPED
from fedrag.config.scenario import Config
from fedrag.exporting.write_export import export_run
from fedrag.types import ShippedComponent, State
from fedrag.weights.fetch import fetch_models
from fedrag.weights.store import FetchedModel, ModelKind

TEXTS = ("When does the ferry leave?", "The crossing to Stor island takes forty minutes.", "fog " * 1000)
"""Texts to be read by fedrag and by the stock library; the last is longer than any model of the zoo reads."""

_LEARNING = {"learning_rate": 0.01, "epochs": 2, "batch_size": 2}


def scenario(part: ShippedComponent, model: FetchedModel, sites: Path, **settings: Any) -> Config:
    """Return a scenario of one round that trains a model alone."""
    return tiny_config(
        sites,
        models={part: model.name},
        federation={"schedule": part, "rounds": 1, "max_update_norm": 1e6},
        **{part: _LEARNING | settings},
    )


def fetched(folder: Path, kind: ModelKind, name: str) -> FetchedModel:
    """Take a model into the store."""
    [model] = fetch_models([str(folder)], "path", kind, save_as=f"{kind}/{name}", force=True)
    return model


def wrong(config: Config, part: ShippedComponent, model: FetchedModel) -> list[str]:
    """Return what `fedrag models check` finds wrong."""
    findings = check_model(config, part, SHIPPED[part], model)
    return [f"{finding.name}: {finding.text}" for finding in findings if not finding.is_ok]


def one_round(config: Config, root: Path) -> State:
    """Train at two sites, average, and keep the result in `root/run`."""
    state, run = federate(config, root / "run")
    run.save_result(state)
    return state


def exported(root: Path) -> Path:
    """Export the run in a folder, and return where its components lie."""
    export_run(root / "run", root / "exported")
    return root / "exported"


def two_sites(root: Path) -> Path:
    return write_small_sites(root, a=4, b=3)
