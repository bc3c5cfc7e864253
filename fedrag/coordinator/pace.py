"""How long a run will go on, by the rounds that were done."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean

from fedrag.config.scenario import Config
from fedrag.coordinator.jobs import run_names
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.errors import RunError
from fedrag.reporting.round_log import Records
from fedrag.runs.run_folder import RunFolder

LAST_ROUNDS = 5
ALIKE = ("models", "rag", "generator", "retriever")
"""Sections of which each must be the same for one run to tell how long another takes."""
ALIKE_IN_ROUNDS = ("schedule", "stage_first", "components", "fraction", "overselect")


@dataclass(frozen=True, slots=True)
class Pace:
    """What an earlier run tells of the length of another.

    Attributes:
        run: Its name.
        seconds_a_round: The mean over its last rounds.
    """

    run: str
    seconds_a_round: float


def seconds_a_round(records: Records) -> float | None:
    """Return the mean of the last rounds; None where none is done.

    >>> seconds_a_round([{"seconds": 90.0}, *[{"seconds": 2.0}] * 5])
    2.0
    """
    last = [record["seconds"] for record in records[-LAST_ROUNDS:]]
    return fmean(last) if last else None


def seconds_left(records: Records, rounds: int) -> float | None:
    """Return how long the rounds that are left take at the pace of the last ones; None where none is done or left.

    >>> seconds_left([{"round": 1, "seconds": 3.0}], 4)
    9.0
    """
    pace = seconds_a_round(records)
    left = rounds - records[-1]["round"] if records else 0
    return left * pace if pace is not None and left > 0 else None


def pace_of_earlier(folder: ServerFolder, config: Config) -> Pace | None:
    """Return the pace of the newest run that trained as this scenario does; None where there is none."""
    for name in reversed(run_names(folder)):
        with suppress(RunError):
            run = RunFolder.open(folder.runs / name)
            pace = seconds_a_round(run.rounds())
            if pace is not None and _trains_alike(run.config, config):
                return Pace(name, pace)
    return None


def _trains_alike(one: Config, other: Config) -> bool:
    """Return whether two scenarios do the same work in a round; the day of a chat template does not matter."""
    sections = [{name: getattr(config, name) for name in ALIKE} for config in (one, other)]
    for found in sections:
        found["rag"] = found["rag"].model_copy(update={"date": ""})
    rounds = [[getattr(config.federation, name) for name in ALIKE_IN_ROUNDS] for config in (one, other)]
    return sections[0] == sections[1] and rounds[0] == rounds[1]
