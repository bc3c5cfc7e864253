"""The learning rates that the arms of a run tried, and how each did on the sites' validation questions.

```
runs/<scenario>-<n>/tries/<arm>/
  <rate>.json            {"generator": 0.41, "retriever": 0.77}; null: it could not be trained
  <rate>/                the runs that the try consists of, until it is measured
```
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from fedrag.files import read_json, write_json
from fedrag.types import Component

SCORED_BY = {"generator": "f1", "retriever": "mrr"}
"""The metric by which the rate of each component is chosen."""

Scores = Mapping[Component, float | None]
"""Score of each component on validation questions, higher is better; None: there is none."""


class RateTries:
    """The tries of one arm, on disk.

    Args:
        run: The folder of the run.
        arm: Name of the arm.
    """

    def __init__(self, run: Path, arm: str) -> None:
        self._folder = run / "tries" / arm

    def folder(self, rate: float) -> Path:
        """Return the folder in which a try is trained."""
        return self._folder / repr(rate)

    def record(self, rate: float, scores: Scores) -> None:
        """Write what a try scored."""
        write_json(self._folder / f"{rate!r}.json", dict(scores))

    def scores(self) -> dict[float, Scores]:
        """Return what each try that was measured scored, by rate, from the smallest."""
        found = {float(path.stem): read_json(path) for path in self._folder.glob("*.json")}
        return dict(sorted(found.items()))

    def best(self) -> dict[Component, float]:
        """Return for each component the rate that scored best; of equal ones the smallest."""
        scores = self.scores()
        components = {component for told in scores.values() for component in told}
        best: dict[Component, float] = {}
        for component in sorted(components):
            told = {rate: score for rate, found in scores.items() if (score := found.get(component)) is not None}
            if told:
                best[component] = max(told, key=lambda rate: (told[rate], -rate))
        return best


def rate_text(rate: float) -> str:
    """Return a learning rate as one writes it.

    >>> rate_text(0.0005), rate_text(0.001)
    ('5e-4', '1e-3')
    """
    exponent = math.floor(math.log10(rate))
    return f"{rate / 10**exponent:.3g}e{exponent}"
