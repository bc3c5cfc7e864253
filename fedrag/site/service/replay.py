"""Replay protection: a site accepts each request once, whatever its clock says.

What is remembered is bounded by number, not by age: a clock that jumps ahead and back forgets nothing. Of the requests
that are forgotten the latest time of signing stays: what was signed then or before is refused for good.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from fedrag.files import storage_errors, write_text

REMEMBERED = 10_000
"""Requests that are remembered: some months of a site that is asked every ten minutes."""

REMEMBERED_S = 2 * 86_400.0
"""Requests that were signed longer ago are refused: they were held back on their way."""


class ReplayGuard:
    """Remembers the ids of accepted requests across restarts.

    Args:
        path: The file: a line `{"id": time of signing}` a request; a number alone is the latest time of the forgotten.
        remembered: Requests that are remembered.
    """

    def __init__(self, path: Path, remembered: int = REMEMBERED) -> None:
        self._path = path
        self._remembered = remembered
        self._accepted: dict[str, float] = {}
        self._forgotten_until = float("-inf")
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for line in lines:
            with suppress(ValueError, TypeError):  # cut off by a crash: its request was never accepted
                self._take_in(json.loads(line))
        self._n_lines = len(lines)
        self._forget_surplus()
        if self._n_lines != len(self._lines()):
            self._rewrite()

    def refuses(self, request: str, when: float, now: float | None = None) -> bool:
        """Return whether a request was accepted before, or is too old to tell.

        Args:
            request: Its id.
            when: When it was signed, in seconds since the epoch.
            now: The current time; None: the clock's.
        """
        is_old = when <= self._forgotten_until or when < (time.time() if now is None else now) - REMEMBERED_S
        return is_old or request in self._accepted

    def accept(self, request: str, when: float, now: float | None = None) -> bool:
        """Remember a request and return True, unless the guard refuses it.

        Raises:
            StorageError: It cannot be written down, and is not accepted.
        """
        if self.refuses(request, when, now):
            return False
        self._append(_line({request: when}))
        self._accepted[request] = when
        self._forget_surplus()
        if self._n_lines > 2 * self._remembered:
            self._rewrite()
        return True

    def _take_in(self, told: object) -> None:
        if isinstance(told, int | float):
            self._forgotten_until = max(self._forgotten_until, told)
        elif isinstance(told, dict):
            self._accepted |= {str(request): float(when) for request, when in told.items()}

    def _forget_surplus(self) -> None:
        """Forget the requests that were signed first, and from then on refuse all that are as old."""
        surplus = len(self._accepted) - self._remembered
        if surplus > 0:
            for request in sorted(self._accepted, key=self._accepted.__getitem__)[:surplus]:
                self._forgotten_until = max(self._forgotten_until, self._accepted.pop(request))

    def _append(self, line: str) -> None:
        """Write a line, whole or not at all: half a line would spoil the next one too."""
        with storage_errors(self._path), self._path.open("ab") as file:
            size = file.tell()
            try:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    os.ftruncate(file.fileno(), size)
                raise
        self._n_lines += 1

    def _lines(self) -> list[str]:
        mark = [_line(self._forgotten_until)] if self._forgotten_until > float("-inf") else []
        return mark + [_line({request: when}) for request, when in self._accepted.items()]

    def _rewrite(self) -> None:
        lines = self._lines()
        write_text(self._path, "".join(lines))
        self._n_lines = len(lines)


def _line(told: dict[str, float] | float) -> str:
    return json.dumps(told) + "\n"
