"""The one reader of a run's log for trackers: the scenario as parameters, values by round, the final figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from fedrag.config.scenario import Config
from fedrag.evaluation.records import ARMS, METRICS, TITLES
from fedrag.files import read_json
from fedrag.runs.run_folder import RunFolder

Value = str | int | float | bool

_PATHS = ("data.sites",)
"""Settings that are paths of this machine: a tracker is not told."""
_NAMES_OR_PATHS = ("start_from", "models.generator", "models.retriever")
"""Settings that may be paths: a tracker is told the last part of one."""


@dataclass(frozen=True, slots=True)
class Step:
    """One round, as trackers take it.

    Attributes:
        number: The round.
        values: Finite numbers by name: `generator/loss`, the mean over the sites, and `generator/loss/<site>`;
            `generator/validation`; `bytes/to_sites`, `bytes/from_sites`; `seconds` and others.
        time: When it ended: the run's beginning and the seconds of its rounds, whenever it is read.
    """

    number: int
    values: dict[str, float]
    time: datetime


class RunLog:
    """What trackers are told of a run.

    Args:
        run: Its folder, of a run that is finished or not.

    Attributes:
        name: Name of the run.
        folder: Its folder.
        scenario: Name of its scenario.
        key: What tells it from every other run, however often it is read.
        started: When it began.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self.folder = run.path.resolve()
        self.name = self.folder.name
        self.scenario = run.config.name
        started = str(run.facts.get("started", ""))
        self.key = sha256(f"{self.name}|{started}".encode()).hexdigest()[:16]
        self.started = datetime.fromisoformat(started) if started else datetime.fromtimestamp(0, UTC)

    @property
    def beside(self) -> Path:
        """The folder of the trackers that keep several runs together: `tracking` beside the run."""
        return self.folder.parent / "tracking"

    @property
    def parameters(self) -> dict[str, Value]:
        """The scenario's settings by their full names, without paths; lists are texts."""
        return parameters_of(self._run.config)

    def steps(self) -> list[Step]:
        """Return the rounds that are done."""
        found, seconds = [], 0.0
        for record in self._run.rounds():
            seconds += float(record["seconds"])
            time = datetime.fromtimestamp(self.started.timestamp() + seconds, UTC)
            found.append(Step(int(record["round"]), round_values(record), time))
        return found

    def table(self) -> dict[str, dict[str, float]]:
        """Return the final figures, shares by arm and metric; none where nothing was measured, or not yet."""
        path = self.folder / "results.json"
        results = read_json(path) if path.is_file() else {}
        means = {arm: results[arm]["overall"] for arm in ARMS if arm in results}
        return {
            arm: {metric: float(found[metric]) for metric in METRICS if found.get(metric) is not None}
            for arm, found in means.items()
        }

    def figures(self) -> dict[str, float]:
        """Return the final figures as `federated/f1`."""
        return {f"{arm}/{metric}": mean for arm, row in self.table().items() for metric, mean in row.items()}

    def table_text(self) -> str:
        """Return the final figures in per cent as a table in Markdown; "" where there are none."""
        table = self.table()
        metrics = [metric for metric in METRICS if any(metric in row for row in table.values())]
        if not table:
            return ""
        head = f"| | {' | '.join(TITLES[metric] for metric in metrics)} |\n|{' --- |' * (len(metrics) + 1)}\n"
        cells = ((arm, (f"{100 * row[m]:.1f}" if m in row else "" for m in metrics)) for arm, row in table.items())
        return head + "\n".join(f"| {arm} | {' | '.join(shown)} |" for arm, shown in cells) + "\n"


def parameters_of(config: Config) -> dict[str, Value]:
    """Return a scenario's settings by their full names, without paths.

    >>> parameters_of(Config.from_dict({"name": "a", "data": {"sites": "/x"}}))["federation.rounds"]
    2
    """
    found: dict[str, Value] = {}
    _flatten(config.model_dump(mode="json"), "", found)
    told = {name: value for name, value in found.items() if name not in _PATHS}
    return told | {name: _without_folders(str(told[name])) for name in _NAMES_OR_PATHS if name in told}


def _without_folders(value: str) -> str:
    """Return the last part of what is a path, and a model's id as it is.

    >>> _without_folders("/home/me/runs/tiny-1"), _without_folders("owner/model")
    ('tiny-1', 'owner/model')
    """
    is_path = value.startswith((".", "~")) or Path(value).is_absolute() or value.count("/") > 1
    return Path(value).name if is_path else value


def _flatten(tree: Mapping[str, Any], prefix: str, found: dict[str, Value]) -> None:
    for key, value in tree.items():
        if isinstance(value, dict):
            _flatten(value, f"{prefix}{key}.", found)
        elif value is not None:
            found[f"{prefix}{key}"] = value if isinstance(value, str | int | float) else str(value)


def round_values(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a line of rounds.jsonl, by name."""
    sites: Mapping[str, Mapping[str, Any]] = record["sites"]
    values = {
        "seconds": record["seconds"],
        "sites/asked": len(record["asked"]),
        "sites/used": len(sites),
        "bytes/to_sites": record["bytes_to_each_site"] * len(record["asked"]),
        "bytes/from_sites": sum(told["bytes"] for told in sites.values()),
    }
    for component in record["components"]:
        losses = {name: told[f"{component}.loss"] for name, told in sites.items() if f"{component}.loss" in told}
        together = record.get("together", {})  # a secure sum tells the mean alone
        if losses:
            values[f"{component}/loss"] = sum(losses.values()) / len(losses)
        elif f"{component}.loss" in together:
            values[f"{component}/loss"] = together[f"{component}.loss"]
        values |= {f"{component}/loss/{name}": loss for name, loss in losses.items()}
        for kind in ("validation", "update_norm", "aggregation_error", "learning_rate"):
            if component in record.get(kind, {}):  # rounds of 0.1 tell no learning rate
                values[f"{component}/{kind}"] = record[kind][component]
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}
