"""The state of a coordinator's run, in a small file in the run's folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from fedrag.coordinator.server_folder import ServerFolder
from fedrag.files import read_json, write_json
from fedrag.runs.run_folder import RunFolder

TOLD_TO_STOP = "it was told to stop"

State = Literal["waiting", "running", "finished", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The state of a run.

    Attributes:
        state: "waiting" for its process, "running", "finished", "stopped" (it can be resumed), or "failed".
        why: Why it stopped or failed, in one sentence.
        since: When it came into this state; ISO 8601.
    """

    state: State
    why: str = ""
    since: str = ""


def write_outcome(run: Path, outcome: Outcome) -> None:
    """Write a run's state with the present time."""
    write_json(run / "outcome.json", asdict(outcome) | {"since": datetime.now(UTC).isoformat(timespec="seconds")})


def read_outcome(run: Path) -> Outcome:
    """Return a run's state."""
    path = run / "outcome.json"
    return Outcome(**read_json(path)) if path.is_file() else Outcome("waiting")


def sites_without_result(folder: ServerFolder, run: RunFolder) -> list[str]:
    """Return the sites that were registered when a run ended and have not received its result."""
    if not run.config.federation.deliver:
        return []
    ended = read_outcome(run.path).since
    return [site.name for site in folder.register.sites() if site.added <= ended and site.name not in run.delivered_to]
