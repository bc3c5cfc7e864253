"""Shows progress: bars with the time left on a terminal, plain lines in a log."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from fedrag.display import LogDisplay
from fedrag.text import printable


def open_display() -> TerminalDisplay | LogDisplay:
    """Return a display that suits the output: a terminal or a log."""
    console = Console()
    return TerminalDisplay(console) if console.is_terminal else LogDisplay()


class TerminalDisplay:
    """Shows bars with the time left; lines scroll above them."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        """Show a line that stays."""
        self._progress.console.print(printable(line), markup=False, highlight=False)

    def progress(self, task: str, done: int, total: int) -> None:
        """Show how far a task is; remove its bar when it is done."""
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(task, total=total)
        self._progress.update(self._tasks[task], completed=done, total=total)
        if done >= total:
            self._progress.remove_task(self._tasks.pop(task))
