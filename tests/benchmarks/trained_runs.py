"""Whole runs that a benchmark compares in a table: trained once, read when the benchmark is started again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fedrag.config.scenario import Config
from fedrag.errors import FedragError
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


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Return the type of an option that takes some of these names, with commas between them.

    >>> some_of(["fedavg", "svd"])("svd")
    ['svd']
    """
    names = list(known)

    def chosen(text: str) -> list[str]:
        found = text.split(",")
        if unknown := [name for name in found if name not in names]:
            raise argparse.ArgumentTypeError(f'there is no "{unknown[0]}"; there are {", ".join(names)}')
        return found

    return chosen


def print_table(lines: Iterable[str]) -> None:
    """Print the lines of a table as the runs end; bad input ends it with a sentence and exit code 2."""
    try:
        for line in lines:
            print(line, flush=True)
    except FedragError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
