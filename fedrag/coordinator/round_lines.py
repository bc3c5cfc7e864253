"""What the coordinator's terminal says of a run while it goes on: one line a round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedrag.errors import RunError
from fedrag.federation.rounds import round_line
from fedrag.runs.run_folder import RunFolder


class RoundLines:
    """Says each round of a run once it is logged.

    Args:
        say: Takes a line for the operator.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._path = Path()
        self._size = 0
        self._last = 0

    def follow(self, path: Path, after: int) -> None:
        """Speak of the rounds of this run from now on, beginning after one."""
        self._path, self._size, self._last = path, 0, after

    def tend(self) -> None:
        """Say what is new."""
        log = self._path / "rounds.jsonl"
        size = log.stat().st_size if log.is_file() else 0
        if size == self._size:
            return
        self._size = size
        try:
            run = RunFolder.open(self._path)
        except RunError:  # it is damaged, or was deleted; whoever works on it says so
            return
        for record in run.rounds():
            if record["round"] > self._last:
                self._last = record["round"]
                left_out = f"; left out: {', '.join(record['left_out'])}" if record["left_out"] else ""
                self._say(f"{run.path.name}: {round_line(record, run.config.federation.rounds)}{left_out}")
