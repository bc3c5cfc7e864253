"""Which questions the page shows: chosen by a rule that the page states, not by taste."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedrag.evaluation.records import Measured

KINDS = {
    "gained": "From wrong to right",
    "lost": "From right to wrong",
    "wrong": "Wrong before and after",
    "right": "Right before and after",
}
"""What can become of a question between the untouched and the federated models."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One question before and after; `before` is None where the untouched models were not measured."""

    before: Measured | None
    after: Measured


def is_right(measured: Measured) -> bool | None:
    """Return whether the answer matches exactly or, without answers, a labelled passage came first; None if unknown."""
    metrics = measured.metrics
    score = metrics["exact_match"] if metrics["exact_match"] is not None else metrics["recall_at_1"]
    return None if score is None else score == 1.0


def kind_of(pair: Pair) -> str | None:
    """Name what became of a question; one measured once counts as unchanged; None if unknown."""
    after = is_right(pair.after)
    before = after if pair.before is None else is_right(pair.before)
    if before is None or after is None:
        return None
    if before == after:
        return "right" if after else "wrong"
    return "gained" if after else "lost"


def by_site(before: Iterable[Measured] | None, after: Iterable[Measured]) -> dict[str, dict[str, list[Pair]]]:
    """Return each site's questions by what became of them, in the order of the SHA-256 of their ids."""
    earlier = {item.key: item for item in before or ()}
    found: dict[str, dict[str, list[Pair]]] = {}
    for item in sorted(after, key=lambda item: (item.site, _order(item.question_id))):
        pair = Pair(earlier.get(item.key), item)
        kind = kind_of(pair)
        if kind is not None:
            found.setdefault(item.site, {name: [] for name in KINDS})[kind].append(pair)
    return found


def kinds(compared: bool) -> dict[str, str]:
    """Return the page's words for what can become of a question, with or without a comparison."""
    return KINDS if compared else {"right": "Right", "wrong": "Wrong"}


def chosen(pairs: Mapping[str, Sequence[Pair]], compared: bool) -> dict[str, Pair]:
    """Return the first question of each kind to show; without a comparison, the first right and wrong one."""
    names = ("gained", "lost", "wrong") if compared else ("right", "wrong")
    return {name: pairs[name][0] for name in names if pairs[name]}


def rule(compared: bool, answers: bool) -> str:
    """Return, in words, how the shown questions were chosen.

    Args:
        compared: Whether the untouched models were measured too.
        answers: Whether answers were generated.
    """
    which = (
        "the first that went from wrong to right, the first that went from right to wrong, and the first that was "
        "wrong both before and after"
        if compared
        else "the first that is right and the first that is wrong"
    )
    right = (
        "the answer matches a right answer exactly, case, punctuation and articles aside"
        if answers
        else "a labelled passage was retrieved first"
    )
    before = " Before: the untouched models; after: the federated ones." if compared else ""
    return (
        f"Chosen by a rule: of each site {which}, in the order of the SHA-256 of the questions' ids. "
        f"Right means that {right}.{before}"
    )


def _order(question_id: str) -> str:
    return hashlib.sha256(question_id.encode()).hexdigest()
