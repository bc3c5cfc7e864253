"""Tells the operator what needs attention: in the log, and by a command of the operator's own."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from fedrag.coordinator.notices import DAY, Notice, notices
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.errors import RunError, StorageError
from fedrag.files import read_json, write_json

TOLD_FILE = "notices.json"
"""In the coordinator's folder: when the command was last called for each kind, also before a restart."""

LOOK_S = 60.0
COMMAND_S = 60.0  # then the command is ended


class Notifier:
    """Looks now and then, and tells each kind of notice at most once a day.

    Args:
        folder: The coordinator's folder.
        say: Takes a line for the log.
    """

    def __init__(self, folder: ServerFolder, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        self._said: dict[str, datetime] = {}
        self._called: dict[str, datetime] = {}
        self._next_look = 0.0

    def tend(self) -> None:
        """Look, if it is time to."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_S
        now = datetime.now(UTC)
        for notice in notices(self._folder, now):
            if _is_due(self._said.get(notice.kind), now):
                self._said[notice.kind] = now
                self._say(f"attention: {notice.text}")
            self._call(notice, now)

    def _call(self, notice: Notice, now: datetime) -> None:
        """Call the operator's command, unless it was called for this kind within a day."""
        command, called = self._folder.config.notify.command, self._noted() | self._called
        if command and _is_due(called.get(notice.kind), now):
            self._called[notice.kind] = called[notice.kind] = now
            with suppress(StorageError):  # a full disk is among what the operator is to be told
                write_json(self._folder.path / TOLD_FILE, {kind: at.isoformat() for kind, at in called.items()})
            threading.Thread(target=self._run, args=([*command, notice.kind, notice.text],), daemon=True).start()

    def _noted(self) -> dict[str, datetime]:
        path = self._folder.path / TOLD_FILE
        with suppress(RunError, TypeError, ValueError):
            return {kind: datetime.fromisoformat(at) for kind, at in read_json(path).items()} if path.is_file() else {}
        return {}  # damaged: it is written again

    def _run(self, command: list[str]) -> None:
        quiet = subprocess.DEVNULL
        try:
            code = subprocess.run(
                command, stdin=quiet, stdout=quiet, stderr=quiet, timeout=COMMAND_S, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            self._say(f"the command under [notify], {command[0]}, was ended after {COMMAND_S:g} s")
        except OSError as error:
            self._say(f"the command under [notify], {command[0]}, cannot be started: {error.strerror}")
        else:
            if code:
                self._say(f"the command under [notify], {command[0]}, ended with code {code}")


def _is_due(last: datetime | None, now: datetime) -> bool:
    """Return whether a day has passed; a clock that jumped makes up to a day of silence, and no more."""
    return last is None or abs(now - last) >= DAY
