"""What the console's page shows, as plain values. Never a node id, never a key beyond its fingerprint."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
import tomli_w

from fedrag.config.schedule import trained_components
from fedrag.coordinator.jobs import run_names
from fedrag.coordinator.notices import notices
from fedrag.coordinator.outcome import read_outcome
from fedrag.coordinator.overview import bytes_below, run_rows, site_rows
from fedrag.coordinator.pace import seconds_left
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.errors import FedragError
from fedrag.reporting.curves import curve_plots
from fedrag.reporting.round_log import Records, failures, site_totals
from fedrag.runs.run_folder import RunFolder
from fedrag.security.certificates import days_left
from fedrag.text import size_text

IN_PROGRESS = ("waiting", "running")

_POLICY_CODE = re.compile(r"\((policy-[a-z-]+)\b")

T = TypeVar("T")


def page_state(folder: ServerFolder, run: str) -> dict[str, Any]:
    """Return what the page shows; `problems` names what cannot be read.

    Args:
        folder: The coordinator's folder.
        run: Name of the run to show; "" for the newest.
    """
    problems: list[str] = []

    def read(reader: Callable[[], T]) -> T | None:
        """Return what can be read; note the error of what cannot, so that the rest of the page stands."""
        try:
            return reader()
        except (FedragError, OSError, httpx.HTTPError) as error:
            problems.append(str(error))
            return None

    running = bool(read(lambda: folder.is_running))
    names = read(lambda: run_names(folder)) or []
    shown = run or (names[-1] if names else "")
    rows = read(lambda: run_rows(folder)) or []
    disk = read(lambda: shutil.disk_usage(folder.path))
    return {
        "folder": str(folder.path),
        "name": folder.config.address,
        "running": running,
        "notices": read(lambda: notices(folder, datetime.now(UTC))) or [],
        "certificate_days": read(lambda: days_left(folder.path / "server.crt", datetime.now(UTC))),
        "fingerprint": read(lambda: folder.signing_fingerprint) or "unknown",
        "used": size_text(bytes_below(folder.path)),
        "free": size_text(disk.free) if disk else "unknown",
        "sites": read(lambda: site_rows(folder)) or [],
        "runs": [row | {"state": _state(row["state"], running)} for row in reversed(rows)],
        "shown": shown,
        "run": read(lambda: _run_state(folder, shown, running)) if shown else None,
        "problems": list(dict.fromkeys(problems)),
    }


def policy_codes(records: Records) -> dict[str, dict[str, int]]:
    """Return the policy codes of each site's refusals with the last round of each, latest first."""
    found: dict[str, dict[str, int]] = {}
    for record in reversed(records):
        for site, reason in record["left_out"].items():
            if code := _POLICY_CODE.search(reason):
                found.setdefault(site, {}).setdefault(code[1], record["round"])
    return found


def _run_state(folder: ServerFolder, name: str, running: bool) -> dict[str, Any]:
    run = RunFolder.open(folder.runs / name)
    records, outcome, rounds = run.rounds(), read_outcome(run.path), run.config.federation.rounds
    state = _state(outcome.state, running)
    return {
        "name": name,
        "state": state,
        "why": outcome.why,
        "since": outcome.since,
        "done": records[-1]["round"] if records else 0,
        "rounds": rounds,
        "seconds_left": seconds_left(records, rounds) if state in IN_PROGRESS else None,
        "in_progress": folder.current().get("run") == name,
        "curves": curve_plots(records, trained_components(run.config.federation), rounds),
        "traffic": site_totals(records),
        "failures": failures(records),
        "refusals": policy_codes(records),
        "delivered": run.delivered_to if run.is_delivered else None,
        "changed": tomli_w.dumps(run.config.model_dump(mode="json", exclude_defaults=True)),
        "settings": run.config.to_toml(),
    }


def _state(state: str, running: bool) -> str:
    """Return a run's state: one in progress is interrupted until the coordinator runs again."""
    return "interrupted" if state in IN_PROGRESS and not running else state
