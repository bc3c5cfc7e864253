"""What was measured, side by side: the means of each arm, and federated minus each other arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedrag.config.rag_settings import RagConfig
from fedrag.evaluation.compare import compare_scores
from fedrag.evaluation.records import ARMS, METRICS, TITLES, Measured, Scores, cut_lines, read_measured, summarise
from fedrag.evaluation.significance import Interval
from fedrag.languages.catalogue import ENGLISH, Words
from fedrag.runs.run_folder import RunFolder

BY_SITE = ("exact_match", "f1", "recall_at_1", "mrr")
"""Metrics that are also shown for each site."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table of results.

    Attributes:
        label: Its first column.
        n_questions: Questions that have the metric.
        means: Mean of each arm; None where it has none.
        differences: Federated minus each other arm, question by question.
        by_site: The same, with intervals over resampled sites; none where the line is of one site.
    """

    label: str
    n_questions: int
    means: dict[str, float | None]
    differences: dict[str, Interval | None]
    by_site: dict[str, Interval | None] = field(default_factory=dict)

    def is_clear(self, arm: str) -> bool:
        """Return whether the intervals of a difference leave zero out."""
        found = [interval for interval in (self.differences[arm], self.by_site.get(arm)) if interval is not None]
        return bool(found) and all(interval.low > 0 or interval.high < 0 for interval in found)


def read_arms(run: RunFolder) -> dict[str, list[Measured]]:
    """Return the records of each arm that was measured to its end.

    Raises:
        RunError: A file of them is damaged.
    """
    folder = run.path / "evaluation"
    whole = [arm for arm in ARMS if (folder / f"{arm}.json").is_file()]  # written after the records
    return {arm: read_measured(folder / f"{arm}.jsonl") for arm in whole}


def measured_metrics(scores: Mapping[str, Scores]) -> list[str]:
    """Return the metrics that any question of any arm has."""
    questions = [metrics for arm in scores.values() for metrics in arm.values()]
    return [metric for metric in METRICS if any(metrics[metric] is not None for metrics in questions)]


def cut_notes(arms: Mapping[str, Sequence[Measured]], rag: RagConfig, words: Words = ENGLISH) -> list[str]:
    """Return for each arm how many prompts, passages and answers were cut; nothing where none was."""
    return cut_lines({words(f"arm.{arm}"): summarise(measured) for arm, measured in arms.items()}, rag, words)


def overall_lines(scores: Mapping[str, Scores]) -> list[Line]:
    """Return a line for each metric that was measured, over all questions."""
    return [_line(TITLES[metric], metric, scores) for metric in measured_metrics(scores)]


def site_lines(scores: Mapping[str, Scores], metric: str) -> list[Line]:
    """Return a line for each site that has the metric."""
    sites = sorted({site for arm in scores.values() for site, _ in arm})
    lines = [
        _line(site, metric, {arm: {k: v for k, v in found.items() if k[0] == site} for arm, found in scores.items()})
        for site in sites
    ]
    return [line for line in lines if line.n_questions]


def _line(label: str, metric: str, scores: Mapping[str, Scores]) -> Line:
    values = {arm: [v for found in s.values() if (v := found[metric]) is not None] for arm, s in scores.items()}
    differences: dict[str, Interval | None] = {}
    by_site: dict[str, Interval | None] = {}
    for arm in scores:
        if arm != "federated" and "federated" in scores:
            row = compare_scores(scores[arm], scores["federated"], metric)
            differences[arm] = row.difference if row else None
            by_site[arm] = row.by_site if row else None
    means = {arm: sum(found) / len(found) if found else None for arm, found in values.items()}
    return Line(label, max((len(found) for found in values.values()), default=0), means, differences, by_site)
