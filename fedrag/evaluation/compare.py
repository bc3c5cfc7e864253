"""Compares two finished runs, or two arms of one, question by question."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedrag.errors import RunError
from fedrag.evaluation.records import METRICS, Scores, read_measured, scores_by_question
from fedrag.evaluation.significance import Interval, paired_bootstrap
from fedrag.runs.run_folder import RunFolder

HOME_ARM = "personalised"


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


@dataclass(frozen=True, slots=True)
class Compared:
    """What is compared with the federated models of the first run.

    Attributes:
        run: Its folder.
        arm: "federated", or "personalised" where its sites trained on at home.
        rows: A comparison of every metric that both measured.
    """

    run: Path
    arm: str
    rows: list[Comparison]


def compare_runs(first: Path, *others: Path, seed: int = 0) -> tuple[list[Compared], int]:
    """Compare runs with the first one's federated models, over the questions that all of them measured.

    Returns:
        The federated models of each other run, then what the sites of any run made of theirs at home; and the number
        of common questions.

    Raises:
        RunError: A run is not finished or measured nothing, or the runs have no question in common.
    """
    runs = (first, *others)
    federated = [_measured(path) for path in runs]
    common = set.intersection(*(set(found) for found in federated))
    if not common:
        names = " and ".join(map(str, runs))
        raise RunError(f"{names} measured no question in common; all must measure the same sites and split")
    systems = [(path, "federated", found) for path, found in zip(others, federated[1:], strict=True)]
    systems += [(path, HOME_ARM, _read(path, HOME_ARM)) for path in runs if _file(path, HOME_ARM).is_file()]
    ours = {key: federated[0][key] for key in common}
    compared = []
    for path, arm, found in systems:
        theirs = {key: found[key] for key in common if key in found}
        rows = [compare_scores(ours, theirs, metric, seed) for metric in METRICS]
        compared.append(Compared(path, arm, [row for row in rows if row is not None]))
    return compared, len(common)


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
    if not _file(path, "federated").is_file():
        raise RunError(f"{path}: measured nothing (it is not finished, or its evaluation.split is none)")
    return _read(path, "federated")


def _file(path: Path, arm: str) -> Path:
    return path / "evaluation" / f"{arm}.jsonl"


def _read(path: Path, arm: str) -> Scores:
    return scores_by_question(read_measured(_file(path, arm)))
