"""Which questions the page shows: chosen by a rule that the page states, not by taste."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedrag.evaluation.records import Measured
from fedrag.languages.catalogue import ENGLISH, Words

KINDS = ("gained", "lost", "wrong", "right")
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


def kinds(compared: bool, words: Words = ENGLISH) -> dict[str, str]:
    """Return the page's words for what can become of a question, with or without a comparison."""
    names, table = (KINDS, "compared") if compared else (("right", "wrong"), "alone")
    return {kind: words(f"kind.{table}.{kind}") for kind in names}


def chosen(pairs: Mapping[str, Sequence[Pair]], compared: bool) -> dict[str, Pair]:
    """Return the first question of each kind to show; without a comparison, the first right and wrong one."""
    names = ("gained", "lost", "wrong") if compared else ("right", "wrong")
    return {name: pairs[name][0] for name in names if pairs[name]}


def rule(compared: bool, answers: bool, words: Words = ENGLISH) -> str:
    """Return, in words, how the shown questions were chosen.

    Args:
        compared: Whether the untouched models were measured too.
        answers: Whether answers were generated.
        words: The language.
    """
    said = [
        words("rule.compared" if compared else "rule.alone"),
        words("rule.right_answer" if answers else "rule.right_passage"),
        *([words("rule.moments")] if compared else []),
    ]
    return words.spaced(said)


def _order(question_id: str) -> str:
    return hashlib.sha256(question_id.encode()).hexdigest()
