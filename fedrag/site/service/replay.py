"""The requests that a site has taken up: none is taken up twice."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from fedrag.files import storage_errors, write_text

KEPT_S = 2 * 86_400.0
"""An older request is refused, so its id need not be remembered."""


class SeenRequests:
    """Remembers the ids of requests, over restarts.

    Args:
        path: Where they are kept: a line a request.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: dict[str, float] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for line in lines:
            try:
                self._seen |= {str(request): float(when) for request, when in json.loads(line).items()}
            except (ValueError, AttributeError):
                continue  # a line that a crash cut off: its request was not taken up
        self._forget_old(time.time())
        if len(self._seen) < len(lines):
            write_text(path, "".join(_line(request, when) for request, when in self._seen.items()))

    def is_old(self, request: str, when: float, now: float | None = None) -> bool:
        """Say whether a request was taken up before, or is so old that it is refused.

        Args:
            request: Its id.
            when: When it was signed, in seconds since the epoch.
            now: The time now; by default the clock's.
        """
        return request in self._seen or when < (time.time() if now is None else now) - KEPT_S

    def is_new(self, request: str, when: float, now: float | None = None) -> bool:
        """Say whether a request is not old, and remember it."""
        now = time.time() if now is None else now
        if self.is_old(request, when, now):
            return False
        self._forget_old(now)
        self._seen[request] = when
        with storage_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(_line(request, when))
            file.flush()
            os.fsync(file.fileno())
        return True

    def _forget_old(self, now: float) -> None:
        self._seen = {request: when for request, when in self._seen.items() if when > now - KEPT_S}


def _line(request: str, when: float) -> str:
    return json.dumps({request: when}) + "\n"
