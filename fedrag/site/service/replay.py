"""Replay protection: a site accepts each request once."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from fedrag.files import storage_errors, write_text

REMEMBERED_S = 2 * 86_400.0
"""Older requests are refused anyway, so their ids can be forgotten."""


class ReplayGuard:
    """Remembers the ids of accepted requests across restarts.

    Args:
        path: The file of ids, one request per line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._accepted: dict[str, float] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for line in lines:
            try:
                self._accepted |= {str(request): float(when) for request, when in json.loads(line).items()}
            except (ValueError, AttributeError):
                continue  # a line cut off by a crash: its request was never accepted
        self._forget_expired(time.time())
        if len(self._accepted) < len(lines):
            write_text(path, "".join(_line(request, when) for request, when in self._accepted.items()))

    def refuses(self, request: str, when: float, now: float | None = None) -> bool:
        """Return whether a request was accepted before, or is too old to tell.

        Args:
            request: Its id.
            when: When it was signed, in seconds since the epoch.
            now: The current time; None: the clock's.
        """
        return request in self._accepted or when < (time.time() if now is None else now) - REMEMBERED_S

    def accept(self, request: str, when: float, now: float | None = None) -> bool:
        """Remember a request and return True, unless the guard refuses it."""
        now = time.time() if now is None else now
        if self.refuses(request, when, now):
            return False
        self._forget_expired(now)
        self._accepted[request] = when
        with storage_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(_line(request, when))
            file.flush()
            os.fsync(file.fileno())
        return True

    def _forget_expired(self, now: float) -> None:
        self._accepted = {request: when for request, when in self._accepted.items() if when >= now - REMEMBERED_S}


def _line(request: str, when: float) -> str:
    return json.dumps({request: when}) + "\n"
