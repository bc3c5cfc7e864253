"""What needs the operator's attention: a certificate, a run, a site, the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from fedrag.coordinator.jobs import run_names
from fedrag.coordinator.outcome import TOLD_TO_STOP, read_outcome
from fedrag.coordinator.server_folder import WARN_DAYS, ServerFolder
from fedrag.errors import RunError, ServiceError
from fedrag.security.certificates import days_left
from fedrag.text import printable, size_text

DAY = timedelta(days=1)
FREE_SHARE, MOST_FREE, LEAST_FREE = 0.05, 10e9, 1e9  # less free than the share, but within these two, is nearly full

Kind = Literal["certificate", "run-failed", "site-away", "disk"]


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that needs attention.

    Attributes:
        kind: What it is about.
        text: What is so and what to do, in one line.
    """

    kind: Kind
    text: str


def notices(folder: ServerFolder, now: datetime) -> list[Notice]:
    """Return what needs attention now, at most one of a kind; `now` has its time zone."""
    looks = (_certificate(folder, now), _failed_run(folder, now), _sites_away(folder, now), _disk(folder))
    return [notice for look in looks for notice in look]


def _certificate(folder: ServerFolder, now: datetime) -> Iterator[Notice]:
    left = days_left(folder.path / "server.crt", now)
    if days_left(folder.path / "ca.crt", now) < WARN_DAYS:
        text = "the authority (ca.crt) ends; make a new coordinator and exchange keys with all sites"
        yield Notice("certificate", f"{_expires(left)}, and with it {text}")
    elif left < WARN_DAYS:
        yield Notice("certificate", f"{_expires(left)}; renew the certificate with: fedrag server rotate {folder.path}")


def _expires(left: int) -> str:
    if left < 0:
        return "the certificate has expired: no site gets in"
    return f"the certificate expires in {left} day{'s' * (left != 1)}"


def _failed_run(folder: ServerFolder, now: datetime) -> Iterator[Notice]:
    """Yield a notice of the newest run, for a day after it ended on its own without a result."""
    with suppress(RunError, ValueError):
        for name in run_names(folder)[-1:]:
            outcome = read_outcome(folder.runs / name)
            failed = outcome.state in ("failed", "stopped") and outcome.why != TOLD_TO_STOP
            if failed and now - datetime.fromisoformat(outcome.since) < DAY:
                go_on = f"fedrag server resume {folder.path} {name}"
                yield Notice(
                    "run-failed",
                    printable(" ".join(f"{name} {outcome.state}: {outcome.why}; go on with: {go_on}".split())),
                )


def _sites_away(folder: ServerFolder, now: datetime) -> Iterator[Notice]:
    """Yield a notice of registered sites that were here once and are not heard of any more."""
    if not folder.is_running:
        return
    with suppress(ServiceError):  # the SuperLink is restarting
        registered = {site.name for site in folder.register.sites()}
        heard = {node.name: node.last_heard for node in folder.link.nodes() if not node.online}
        away = sorted(name for name in registered & heard.keys() if _is_older(heard[name], now - DAY))
        if away:
            said = ", ".join(f"{name} (last heard of {heard[name][:16].replace('T', ' ')} UTC)" for name in away)
            yield Notice("site-away", f"not heard of for a day or longer: {said}")


def _is_older(time: str, than: datetime) -> bool:
    return bool(time) and datetime.fromisoformat(time).astimezone(UTC) < than


def _disk(folder: ServerFolder) -> Iterator[Notice]:
    disk = shutil.disk_usage(folder.path)
    if disk.free < max(LEAST_FREE, min(MOST_FREE, FREE_SHARE * disk.total)):
        yield Notice("disk", f"the disk is nearly full: {size_text(disk.free)} are free; delete runs that have ended")
