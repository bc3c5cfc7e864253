"""What the numbers of a run show, in plain sentences."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from fedrag.evaluation.significance import FEW_QUESTIONS, Interval

METRIC_WORDS = {"exact_match": "exact match", "mrr": "MRR", "f1": "F1", "recall_at_1": "recall@1"}

_INTERVAL = "95\N{NO-BREAK SPACE}% interval"
_NAMES = {
    "untouched": "the untouched models",
    "local": "the local models",
    "personalised": "the models trained on at home",
    "pooled": "the pooled model",
}


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
) -> str:
    """Return, in words, what federation reached in a metric, and whether it beats each other arm.

    Args:
        metric: Its name.
        federated: Mean of the federated models.
        differences: Federated minus each other arm, by the arm's name.
        n_questions: Questions that were measured.
        by_site: The same differences, with intervals over resampled sites.
    """
    known = {arm: interval for arm, interval in differences.items() if interval is not None}
    questions = "1 question" if n_questions == 1 else f"{n_questions:,} questions"
    reached = f"Federation reaches {percent(federated)} per cent {METRIC_WORDS[metric]} on {questions}"
    if not known:
        return f"{reached}. Nothing else was measured, so there is nothing to compare it with."
    clauses = [
        f"{verb} {_joined([tell(arm, known[arm]) for arm in known if outcome(known[arm]) == kind])}"
        for kind, (verb, tell) in _CLAUSES.items()
        if any(outcome(interval) == kind for interval in known.values())
    ]
    caution = _caution_by_site(known, by_site or {})
    if n_questions < FEW_QUESTIONS:
        caution += " So few questions tell little."
    return f"{reached}. It {'; it '.join(clauses)}.{caution}"


def _caution_by_site(known: Mapping[str, Interval], by_site: Mapping[str, Interval | None]) -> str:
    """Return a sentence on differences that other questions of the same sites would show, and other sites may not."""
    doubtful = [
        _NAMES[arm]
        for arm, interval in known.items()
        if outcome(interval) in ("more", "less") and (drawn := by_site.get(arm)) and outcome(drawn) == "open"
    ]
    return f" Over sites, the interval of the difference to {_joined(doubtful)} holds zero." if doubtful else ""


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


def percent(value: float, sign: bool = False) -> str:
    """Return a share in per cent with one digit, and a real minus sign; nothing is shown as minus zero.

    >>> percent(0.3125), percent(-0.0213, sign=True), percent(-0.0001, sign=True)
    ('31.2', '−2.1', '0.0')
    """
    text = f"{100 * value:{'+' if sign else ''}.1f}"
    return "0.0" if text in ("-0.0", "+0.0") else text.replace("-", "−")


def _more(arm: str, d: Interval) -> str:
    return f"{_NAMES[arm]} by {percent(d.mean_difference)} points ({_INTERVAL} {percent(d.low)} to {percent(d.high)})"


def _less(arm: str, d: Interval) -> str:
    return _more(arm, Interval(-d.mean_difference, -d.high, -d.low))


def _open(arm: str, d: Interval) -> str:
    interval = f"{_INTERVAL} {percent(d.low, sign=True)} to {percent(d.high, sign=True)}, which holds zero"
    return f"{_NAMES[arm]} ({percent(d.mean_difference, sign=True)} points, {interval})"


def _same(arm: str, d: Interval) -> str:
    return _NAMES[arm]


_CLAUSES: dict[str, tuple[str, Callable[[str, Interval], str]]] = {
    "more": ("beats", _more),
    "less": ("does worse than", _less),
    "open": ("cannot be told apart from", _open),
    "same": ("scores exactly the same as", _same),
}


def _joined(parts: Sequence[str]) -> str:
    """Join parts as a sentence does.

    >>> _joined(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
