"""What a long computation tells the person who waits for it."""

from __future__ import annotations

from typing import Protocol


class Display(Protocol):
    """Receives lines and progress; the command line shows them, a library call need not."""

    def say(self, line: str) -> None:
        """Show one line for good."""

    def progress(self, task: str, done: int, total: int) -> None:
        """Show how far a task is; it ends when done equals total."""


class Quiet:
    """Shows nothing."""

    def say(self, line: str) -> None:
        """Ignore the line."""

    def progress(self, task: str, done: int, total: int) -> None:
        """Ignore the progress."""
