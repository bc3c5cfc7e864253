"""A run as a Python program gets it: its folder, which a notebook shows as its table and picture."""

from __future__ import annotations

from pathlib import Path

from fedrag.reporting.run_card import render_card
from fedrag.runs.run_folder import RunFolder


class Run(RunFolder):
    """The folder of a run, finished or not."""

    @classmethod
    def of(cls, folder: RunFolder | Path | str) -> Run:
        """Return the run in a folder.

        Raises:
            RunError: There is no run, or this version cannot read it.
        """
        found = folder if isinstance(folder, RunFolder) else RunFolder.open(Path(folder))
        return cls(found.path, found.config)

    def _repr_html_(self) -> str:
        return render_card(self)
