"""What a coordinator shows of itself: sites, runs, certificate, disk. Never a node id."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedrag.coordinator.conduct import Conduct
from fedrag.coordinator.flower import RegisteredNode
from fedrag.coordinator.jobs import run_names
from fedrag.coordinator.notices import notices
from fedrag.coordinator.outcome import read_outcome
from fedrag.coordinator.policy_text import policy_phrases
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.errors import RunError, ServiceError
from fedrag.runs.run_folder import RunFolder
from fedrag.security.certificates import days_left
from fedrag.security.keys import fingerprint
from fedrag.text import size_text


def site_rows(folder: ServerFolder) -> list[dict[str, Any]]:
    """Return the registered sites: their state and since when, when they were last heard of, and what they told."""
    nodes, told = _nodes(folder), told_last(folder)
    states = _states(folder, nodes)
    rows = []
    for site in folder.register.sites():
        node = nodes.get(site.name)
        said = told.get(site.name, {"version": "", "counts": {}})
        rows.append(
            {
                "name": site.name,
                "state": states[site.name],
                "since": _to_the_second(node.last_seen) if node else "",
                "last_heard_of": _to_the_second(node.last_heard) if node else "",
                "version": said["version"],
                "questions": said["counts"].get("train_questions", ""),
                "policy": policy_phrases(said.get("policy", {})),
                "key": fingerprint(site.public_key),
            }
        )
    return rows


def _to_the_second(time: str) -> str:
    return time[:19].replace("T", " ")


def site_states(folder: ServerFolder) -> dict[str, str]:
    """Return whether each registered site is "online", "offline", "set aside" or "unknown", by name."""
    return _states(folder, _nodes(folder))


def _states(folder: ServerFolder, nodes: Mapping[str, RegisteredNode]) -> dict[str, str]:
    set_aside = Conduct(folder.path).set_aside()
    return {
        site.name: "set aside" if site.name in set_aside else _state(nodes.get(site.name))
        for site in folder.register.sites()
    }


def _nodes(folder: ServerFolder) -> dict[str, RegisteredNode]:
    if folder.is_running:
        with suppress(ServiceError):  # the SuperLink is restarting
            return {node.name: node for node in folder.link.nodes()}
    return {}


def _state(node: RegisteredNode | None) -> str:
    return ("online" if node.online else "offline") if node else "unknown"


def told_last(folder: ServerFolder) -> dict[str, dict[str, Any]]:
    """Return what each site told in its last greeting: `version`, `counts` and, in newer runs, `policy`, by name."""
    told: dict[str, dict[str, Any]] = {}
    for name in run_names(folder):
        with suppress(RunError):
            told |= RunFolder.open(folder.runs / name).told_by_sites
    return told


def run_rows(folder: ServerFolder) -> list[dict[str, Any]]:
    """Return all runs: their state and round, and why one stopped."""
    rows = []
    for name in run_names(folder):
        try:
            run = RunFolder.open(folder.runs / name)
            outcome = read_outcome(run.path)
        except RunError as error:
            rows.append({"run": name, "state": "unknown", "round": "", "since": "", "why": str(error)})
            continue
        rounds = run.rounds()
        last = int(rounds[-1]["round"]) if rounds else 0
        done = f"{last} of {run.config.federation.rounds}"
        rows.append({"run": name, "state": outcome.state, "round": done, "since": outcome.since, "why": outcome.why})
    return rows


def overview(folder: ServerFolder) -> dict[str, Any]:
    """Return what `fedrag server status` shows."""
    now = datetime.now(UTC)
    return {
        "name": folder.config.address,
        "running": folder.is_running,
        "certificate_days": days_left(folder.path / "server.crt", now),
        "notices": [asdict(notice) for notice in notices(folder, now)],
        "disk": size_text(bytes_below(folder.path)),
        "sites": site_rows(folder),
        "runs": run_rows(folder),
    }


def bytes_below(path: Path) -> int:
    """Return the bytes of all files below a folder."""
    total = 0
    for folder, _, names in os.walk(path):  # skips a folder that disappears meanwhile, as Path.rglob does not
        for name in names:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(folder, name)).st_size
    return total
