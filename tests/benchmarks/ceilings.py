"""Draws how close training and scoring come to what the machine can do, from the results of ralt.py and scoring.py.

The ceilings are rates too: what would be done in a second if all of it were large square products, or products of the
model's own shapes, and nothing else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench import RESULTS

PLOT = Path(__file__).parent / "ceilings.png"
PANELS = {
    "ralt": ("Training the adapter", "tokens a second", "tokens", {"trl": "TRL's SFTTrainer"}),
    "scoring": (
        "Scoring answers",
        "question and passage, pairs a second",
        "pairs",
        {"peers": "one at a time, float32"},
    ),
}


def measured(name: str) -> dict[str, Any]:
    """Return all figures of one benchmark's rows."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        sys.exit(f"{path} is missing; run: python tests/benchmarks/run.py {name}")
    figures: dict[str, Any] = {}
    for row in json.loads(path.read_text()):
        figures |= row["figures"]
    return figures


def draw() -> None:
    """Draw a panel for each benchmark: the peer, fedrag, and the two ceilings."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(PANELS), figsize=(9, 2.6), layout="constrained")
    for axes, (name, (title, unit, what, peers)) in zip(panels, PANELS.items(), strict=True):
        found = measured(name)
        ours = found[f"ours_{what}_a_second"]
        rates = {label: found[f"{peer}_{what}_a_second"] for peer, label in peers.items()} | {"fedrag": ours}
        for ceiling, label in (("own_shapes", "ceiling: its own shapes"), ("square", "ceiling: large squares")):
            rates[label] = ours * found[f"{ceiling}_gflops"] / found["gflops"]
        colours = ["#8a8f98"] * len(peers) + ["#1f6feb"] + ["#d5d9df"] * 2
        bars = axes.barh(list(rates), list(rates.values()), color=colours)
        axes.bar_label(
            bars, labels=[f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}" for rate in rates.values()], padding=3
        )
        axes.set(title=title, xlabel=unit, xlim=(0, 1.15 * max(rates.values())))
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PLOT, dpi=120)


if __name__ == "__main__":
    draw()
