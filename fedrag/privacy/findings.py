"""What an audit found, in sentences for whoever answers for the data. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedrag.privacy.membership import FEWEST_OTHERS, Separation
from fedrag.privacy.regurgitation import CONTINUED_TOKENS, GIVEN_TOKENS

CLEAR_SHARE = 0.05
"""Found at one false accusation in a hundred, this share is five times what chance finds."""
CLEAR_AREA = 0.6
"""In so many of all pairs the one that was learnt from scores higher."""

NOT_TESTED = (
    "Whether single updates, which a site sends in every round, give texts back to the coordinator: this audit looks "
    "at the finished models alone.",
    "Attackers who train models of their own for comparison. They find more than the two passes of this audit do.",
    "What a passage shows when it is put in a prompt. Whoever may search a site's passages may read them.",
    "Questions that no split holds back. Without others like them, nothing can be said about those trained on.",
)
"""What nobody should take the audit for."""


def headline(result: Mapping[str, Any]) -> str:
    """Return the one sentence above all others."""
    found = {name: Separation(**figures) for name, figures in result["membership"].items()}
    if not found:
        return "Nothing was trained that could remember a question."
    if unsure := [one.n_others for one in found.values() if not one.is_sure]:
        return f"Too few held-back questions for a headline: {min(unsure)}, at least {FEWEST_OTHERS} are needed."
    if told := [name for name, one in found.items() if one.found_low > CLEAR_SHARE or one.auc_low > CLEAR_AREA]:
        return f"Single questions that the {' and the '.join(told)} learnt from can be told from others."
    if better := [name for name, one in found.items() if not one.is_at_chance]:
        return (
            f"On average the {' and the '.join(better)} {'does' if len(better) == 1 else 'do'} better on questions "
            "learnt from than on others; few single questions, if any, can be told by it."
        )
    return "Questions that were trained on cannot be told from others by this audit."


def sentences(result: Mapping[str, Any]) -> list[str]:
    """Return what was found, a sentence for each measurement."""
    told = [membership_text(name, Separation(**figures)) for name, figures in result["membership"].items()]
    if "answers" in result:
        told.append(_answers_text(result["answers"]))
        told.append(_passages_text(result["passages"]))
    return told


def membership_text(component: str, found: Separation) -> str:
    """Return how well a component's questions can be told from others.

    >>> membership_text("retriever", Separation(80, 200, 0.46, 0.38, 0.55, 0.0125, 0.0003, 0.0677))
    'From the retriever, 80 questions that it learnt from and 200 others: the first score higher in 46 of 100 pairs (95 % interval 38 to 55; 50 is chance). With one false accusation in a hundred, 1.2 % are found (0.0 to 6.8; 1 is chance).'
    """  # noqa: E501 - the sentence is one line
    return (
        f"From the {component}, {found.n_members:,} questions that it learnt from and {found.n_others:,} others: the "
        f"first score higher in {100 * found.auc:.0f} of 100 pairs (95 % interval {100 * found.auc_low:.0f} to "
        f"{100 * found.auc_high:.0f}; 50 is chance). With one false accusation in a hundred, "
        f"{_per_cent(found.found)} % are found ({_per_cent(found.found_low)} to {_per_cent(found.found_high)}; 1 is "
        "chance)."
    )


def _answers_text(answers: Mapping[str, Any]) -> str:
    ours, theirs = answers["members"], answers["others"]
    return (
        f"Asked without any passage, the generator answers {_of(ours['trained'])} that it learnt from word for word, "
        f"and {_of(theirs['trained'])} that were held back; before training {_of(ours['untouched'])} and "
        f"{_of(theirs['untouched'])}."
    )


def _passages_text(passages: Mapping[str, Any]) -> str:
    trained, untouched = passages["trained"], passages["untouched"]
    if not trained["n"]:
        return "No passage is long enough to see whether the generator goes on with it by heart."
    return (
        f"Given the first {GIVEN_TOKENS} tokens of a passage, it goes on with the next {CONTINUED_TOKENS} word for "
        f"word for {trained['hits']:,} of {trained['n']:,} passages; before training for {untouched['hits']:,}."
    )


def _of(share: Mapping[str, Any]) -> str:
    return f"{share['hits']:,} of {share['n']:,}"


def _per_cent(share: float) -> str:
    return f"{100 * share:.1f}"
