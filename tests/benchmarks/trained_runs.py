"""Whole runs that a benchmark compares: trained once, read when the benchmark is started again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedrag.config.scenario import Config
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import resume, simulate
from fedrag.training.losses import Losses
from fedrag.weights.fetch import fetch_models

SCENARIOS = Path(__file__).parents[2] / "simulations" / "scenarios"
_TINY = ("fedrag/tiny-causal", "fedrag/tiny-encoder")


def trained_run(path: Path, scenario: str, settings: Sequence[str], losses: Losses = Losses()) -> RunFolder:
    """Return the finished run in a folder: as it is there, resumed, or trained now.

    Args:
        path: Folder of the run.
        scenario: Name of a scenario that ships.
        settings: What differs from it, as SECTION.KEY=VALUE.
        losses: The losses of the run.
    """
    if (path / "run.json").is_file():
        return resume(path, losses=losses)
    return simulate(Config.from_file(SCENARIOS / f"{scenario}.toml", settings), out=path, losses=losses)


def tiny_models() -> tuple[str, ...]:
    """Make the tiny random models, and return the settings with which a scenario uses them."""
    fetch_models(_TINY)
    return f"models.generator={_TINY[0]}", f"models.retriever={_TINY[1]}", "generator.adapter_from=start"
