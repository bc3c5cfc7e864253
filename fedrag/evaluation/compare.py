"""Compares two finished runs, question by question."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedrag.errors import RunError
from fedrag.evaluation.measure import METRICS
from fedrag.evaluation.significance import Interval, paired_bootstrap
from fedrag.runs import RunFolder


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of two runs.

    Attributes:
        metric: Its name.
        first: Mean of the first run.
        second: Mean of the second.
        difference: Second minus first, over the questions that both measured.
    """

    metric: str
    first: float
    second: float
    difference: Interval


def compare_runs(first: Path, second: Path, seed: int = 0) -> tuple[list[Row], int]:
    """Return a row per metric that both runs measured, and the number of common questions.

    Raises:
        RunError: A run is not finished, measured nothing, or they have no question in common.
    """
    ours, theirs = _measured(first), _measured(second)
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        raise RunError(
            f"{first} and {second} measured no question in common; both must measure the same sites and split"
        )
    rows = []
    for metric in METRICS:
        pairs = [(ours[key][metric], theirs[key][metric]) for key in common]
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        if both:
            a, b = [pair[0] for pair in both], [pair[1] for pair in both]
            rows.append(Row(metric, sum(a) / len(a), sum(b) / len(b), paired_bootstrap(b, a, seed=seed)))
    return rows, len(common)


def _measured(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    RunFolder.open(path)
    file = path / "evaluation" / "federated.jsonl"
    if not file.is_file():
        raise RunError(f"{path}: measured nothing (it is not finished, or its evaluation.split is none)")
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {(line["site"], line["question_id"]): line["metrics"] for line in lines}
