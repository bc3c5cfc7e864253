"""How a long computation tells the waiting user about its progress."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, Self

from fedrag.text import printable

LOG_EVERY_S = 60.0
KNOWN_AFTER_S = 5.0  # before that, a task's speed says nothing about the time left


class Display(Protocol):
    """Shows lines and progress: the command line does, a library call need not."""

    def say(self, line: str) -> None:
        """Show a line that stays."""

    def progress(self, task: str, done: int, total: int) -> None:
        """Show how far a task is; it ends when `done` equals `total`."""


class Quiet:
    """Shows nothing."""

    def say(self, line: str) -> None:
        """Ignore the line."""

    def progress(self, task: str, done: int, total: int) -> None:
        """Ignore the progress."""


class LogDisplay:
    """Prints plain lines and, now and then, how far a long task is and how long it will take."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def say(self, line: str) -> None:
        """Print one line."""
        print(printable(line), flush=True)  # noqa: T201  # a log is what this display is for

    def progress(self, task: str, done: int, total: int) -> None:
        """Print how far a task is, at most once a minute."""
        now = time.monotonic()
        started = self._started.setdefault(task, now)
        if done >= total:
            del self._started[task]
        elif done and now - self._last > LOG_EVERY_S and now - started > KNOWN_AFTER_S:
            self._last = now
            left = (now - started) / done * (total - done)
            self.say(f"  {task}: {done} of {total}, {_duration(left)} left")


def _duration(seconds: float) -> str:
    """Return a time as minutes and seconds.

    >>> _duration(75)
    '1:15'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
