"""Compares two finished runs, or two arms of one, question by question."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedrag.errors import RunError
from fedrag.evaluation.records import METRICS, Scores, read_measured, scores_by_question
from fedrag.evaluation.significance import Interval, paired_bootstrap
from fedrag.runs.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class Comparison:
    """A metric of two systems on the same questions.

    Attributes:
        metric: Its name.
        first: Mean of the first system.
        second: Mean of the second.
        difference: Second minus first, over the questions that both answered.
        by_site: The same, with an interval over resampled sites; None where there is one site.
    """

    metric: str
    first: float
    second: float
    difference: Interval
    by_site: Interval | None


def compare_runs(first: Path, *others: Path, seed: int = 0) -> tuple[list[list[Comparison]], int]:
    """Compare runs with the first one, over the questions that all of them measured.

    Returns:
        For each other run a comparison of every metric that both measured, and the number of common questions.

    Raises:
        RunError: A run is not finished or measured nothing, or the runs have no question in common.
    """
    scores = [_measured(path) for path in (first, *others)]
    common = set.intersection(*(set(found) for found in scores))
    if not common:
        names = " and ".join(map(str, (first, *others)))
        raise RunError(f"{names} measured no question in common; all must measure the same sites and split")
    ours, *theirs = ({key: found[key] for key in common} for found in scores)
    rows = [[compare_scores(ours, found, metric, seed) for metric in METRICS] for found in theirs]
    return [[row for row in found if row is not None] for found in rows], len(common)


def compare_scores(first: Scores, second: Scores, metric: str, seed: int = 0) -> Comparison | None:
    """Compare a metric over the questions that have it in both systems; return None if there are none."""
    common = sorted(first.keys() & second.keys())
    rows = [(key[0], first[key][metric], second[key][metric]) for key in common]
    both = [(site, a, b) for site, a, b in rows if a is not None and b is not None]
    if not both:
        return None
    sites, a, b = zip(*both, strict=True)
    by_site = paired_bootstrap(b, a, groups=sites, seed=seed) if len(set(sites)) > 1 else None
    return Comparison(metric, sum(a) / len(a), sum(b) / len(b), paired_bootstrap(b, a, seed=seed), by_site)


def _measured(path: Path) -> Scores:
    RunFolder.open(path)
    file = path / "evaluation" / "federated.jsonl"
    if not file.is_file():
        raise RunError(f"{path}: measured nothing (it is not finished, or its evaluation.split is none)")
    return scores_by_question(read_measured(file))
