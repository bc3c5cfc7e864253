"""What a coordinator can show of itself: sites, runs, certificate, disk. Never a node id."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedrag.coordinator.folder import ServerFolder
from fedrag.coordinator.jobs import run_names
from fedrag.coordinator.outcome import read_outcome
from fedrag.display import size_text
from fedrag.runs import RunFolder
from fedrag.security.certificates import days_left
from fedrag.security.keys import fingerprint


def site_rows(folder: ServerFolder) -> list[dict[str, Any]]:
    """Return the registered sites: whether they are online, when they were last seen, their key's fingerprint."""
    nodes = {node.name: node for node in folder.link.nodes()} if folder.is_running else {}
    rows = []
    for site in folder.sites():
        node = nodes.get(site.name)
        state = ("online" if node.online else "offline") if node else "unknown"
        seen = node.last_seen[:19].replace("T", " ") if node else ""
        rows.append({"name": site.name, "state": state, "last_seen": seen, "key": fingerprint(site.public_key)})
    return rows


def run_rows(folder: ServerFolder) -> list[dict[str, Any]]:
    """Return all runs: how far they are, and why one stopped."""
    rows = []
    for name in run_names(folder):
        run = RunFolder.open(folder.runs / name)
        outcome = read_outcome(run.path)
        rounds = run.rounds()
        done = int(rounds[-1]["round"]) if rounds else 0
        rows.append(
            {
                "run": name,
                "state": outcome.state,
                "round": f"{done} of {run.config.federation.rounds}",
                "since": outcome.since,
                "why": outcome.why,
            }
        )
    return rows


def overview(folder: ServerFolder) -> dict[str, Any]:
    """Return what `fedrag server status` shows."""
    return {
        "name": f"{folder.config.name}:{folder.config.port}",
        "running": folder.is_running,
        "certificate_days": days_left(folder.path / "server.crt", datetime.now(UTC)),
        "disk": size_text(_bytes_below(folder.path)),
        "sites": site_rows(folder),
        "runs": run_rows(folder),
    }


def _bytes_below(path: Path) -> int:
    total = 0
    for file in path.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:
            continue  # it was replaced meanwhile
    return total
