"""Progress in a notebook: one line that moves, below it what was said."""

from __future__ import annotations

import sys
from typing import Any

from fedrag.display import Display, Quiet


def default_display() -> Display:
    """Return a display that suits where the program runs: a notebook's own, or none."""
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None else None
    return NotebookDisplay() if type(running).__name__ == "ZMQInteractiveShell" else Quiet()


class NotebookDisplay:
    """Shows lines, and how far the current task is, in the output of a cell."""

    def __init__(self) -> None:
        self._line: Any = None

    def say(self, line: str) -> None:
        """Show a line that stays."""
        print(line)  # noqa: T201  # the output of a cell is what this display is for

    def progress(self, task: str, done: int, total: int) -> None:
        """Show how far a task is, in the place of what was shown before."""
        from IPython.display import Pretty, display  # there is one where this display is chosen

        text = Pretty(f"{task}: {done} of {total}" if done < total else "")
        if self._line is None:
            self._line = display(text, display_id=True)
        else:
            self._line.update(text)
