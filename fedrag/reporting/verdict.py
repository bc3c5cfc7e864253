"""What the numbers of a run show, in plain sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fedrag.evaluation.significance import FEW_QUESTIONS, Interval
from fedrag.languages.catalogue import ENGLISH, Words

_OUTCOMES = ("more", "less", "open", "same")


def headline_metrics(trained: Collection[str], measured: Collection[str]) -> list[str]:
    """Return the metrics of the verdict: of the answers, and of retrieval where it was trained.

    >>> headline_metrics(["retriever"], ["recall_at_1", "mrr"])
    ['recall_at_1']
    """
    wanted = ["exact_match", *(["recall_at_1"] if "retriever" in trained or "exact_match" not in measured else [])]
    return [metric for metric in wanted if metric in measured]


def verdict(
    metric: str,
    federated: float,
    differences: Mapping[str, Interval | None],
    n_questions: int,
    by_site: Mapping[str, Interval | None] | None = None,
    words: Words = ENGLISH,
) -> str:
    """Return, in words, what federation reached in a metric, and whether it beats each other arm.

    Args:
        metric: Its name.
        federated: Mean of the federated models.
        differences: Federated minus each other arm, by the arm's name.
        n_questions: Questions that were measured.
        by_site: The same differences, with intervals over resampled sites.
        words: The language.
    """
    known = {arm: interval for arm, interval in differences.items() if interval is not None}
    name = words(f"metric.{metric}")
    reached = words("verdict.reached", percent=percent(federated, words=words), metric=name, n=n_questions)
    if not known:
        return words.spaced([reached, words("verdict.alone")])
    clauses = [
        words(f"verdict.{kind}", arms=words.joined(alike))
        for kind in _OUTCOMES
        if (
            alike := [_told(arm, difference, words) for arm, difference in known.items() if outcome(difference) == kind]
        )
    ]
    said = [reached, words("verdict.compared", clauses=words.unfilled("verdict.between").join(clauses))]
    # other questions of the same sites would show these differences, and other sites may not
    doubtful = [
        words(f"verdict.arm.{arm}")
        for arm, interval in known.items()
        if outcome(interval) in ("more", "less") and (drawn := (by_site or {}).get(arm)) and outcome(drawn) == "open"
    ]
    if doubtful:
        said.append(words("verdict.doubtful", arms=words.joined(doubtful)))
    if n_questions < FEW_QUESTIONS:
        said.append(words("verdict.few"))
    return words.spaced(said)


def outcome(difference: Interval) -> str:
    """Return on which side of zero a difference lies: "more", "less", "same", or "open" where the interval holds zero.

    >>> outcome(Interval(0.02, -0.01, 0.05))
    'open'
    """
    if difference.mean_difference == difference.low == difference.high == 0:
        return "same"
    if difference.low > 0:
        return "more"
    return "less" if difference.high < 0 else "open"


def percent(value: float, sign: bool = False, words: Words = ENGLISH) -> str:
    """Return a share in per cent with one digit, and a real minus sign; nothing is shown as minus zero.

    >>> percent(0.3125), percent(-0.0213, sign=True), percent(-0.0001, sign=True)
    ('31.2', '−2.1', '0.0')
    """
    text = f"{100 * value:{'+' if sign else ''}.1f}"
    return words.number("0.0" if text in ("-0.0", "+0.0") else text.replace("-", "−"))


def _told(arm: str, d: Interval, words: Words) -> str:
    """Return an arm's name with its difference, as its outcome is told."""
    name, kind = words(f"verdict.arm.{arm}"), outcome(d)
    if kind == "same":
        return name
    if kind == "less":
        d = Interval(-d.mean_difference, -d.high, -d.low)
    points, low, high = (
        percent(value, sign=kind == "open", words=words) for value in (d.mean_difference, d.low, d.high)
    )
    return words(
        "verdict.difference_open" if kind == "open" else "verdict.difference",
        arm=name,
        points=points,
        low=low,
        high=high,
    )
