"""The runs in a folder: what each was, how far it is, what it found, and how to go on with one that was interrupted."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from fedrag.errors import ConfigError, FedragError
from fedrag.locks import is_held
from fedrag.reporting.what_ran import is_deployed, outcome_of, resume_command
from fedrag.runs.run_folder import RunFolder

State = Literal["finished", "running", "interrupted", "unreadable"]

FIGURES = ("exact_match", "f1", "recall_at_1", "mrr")
"""Figures of the federated models that a list shows."""


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run in a list.

    Attributes:
        path: Its folder.
        state: How it is.
        scenario: Name of its scenario.
        began: When it began, in UTC, ISO 8601.
        rounds_done: Rounds that its log holds.
        rounds: Rounds that it has in all.
        figures: Means of the federated models, in [0, 1]; None where one was not measured, or not yet.
        go_on: The command that goes on with it, where it was interrupted.
        why: Why it was interrupted or cannot be read, where that is known.
    """

    path: Path
    state: State
    scenario: str = ""
    began: str = ""
    rounds_done: int = 0
    rounds: int = 0
    figures: dict[str, float | None] = field(default_factory=dict)
    go_on: str = ""
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self) | {"path": str(self.path)}


def list_runs(folder: Path) -> list[ListedRun]:
    """Return the runs in a folder, the oldest first; of a run's own folder that run.

    Raises:
        ConfigError: There is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; fedrag simulate makes runs/<scenario>-<n>")
    paths = [folder] if _holds_run(folder) else [path for path in folder.iterdir() if _holds_run(path)]
    return sorted(map(_listed, paths), key=lambda run: (run.began, run.path.name))


def _holds_run(path: Path) -> bool:
    return (path / "scenario.toml").is_file()


def _listed(path: Path) -> ListedRun:
    written = datetime.fromtimestamp((path / "scenario.toml").stat().st_mtime, UTC)
    began = written.isoformat(timespec="seconds")
    try:
        run = RunFolder.open(path)
        began = str(run.facts.get("started", began))
        state, why = _state(run)
        return ListedRun(
            path,
            state,
            run.config.name,
            began,
            len(run.rounds()),
            run.config.federation.rounds,
            _figures(run),
            resume_command(run) if state == "interrupted" else "",
            why,
        )
    except FedragError as error:  # of another version, or damaged: the others are listed all the same
        return ListedRun(path, "unreadable", began=began, why=str(error))


def _state(run: RunFolder) -> tuple[State, str]:
    """Return how a run is, and why where that was noted."""
    outcome = outcome_of(run)
    if outcome.get("state") in ("waiting", "running"):
        return "running", ""
    if (run.path / "results.json").is_file() or (run.is_finished and is_deployed(run)):
        return "finished", ""
    if is_held(run.path):
        return "running", ""
    return "interrupted", str(outcome.get("why", ""))


def _figures(run: RunFolder) -> dict[str, float | None]:
    measured = (run.path / "results.json").is_file()
    means = run.results().get("federated", {}).get("overall", {}) if measured else {}
    return {metric: means.get(metric) for metric in FIGURES}
