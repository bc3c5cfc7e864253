"""What an audit found, in sentences for whoever answers for the data. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fedrag.privacy.membership import FEWEST_OTHERS, Separation
from fedrag.privacy.one_run import DELTA, EpsilonBound
from fedrag.privacy.regurgitation import CONTINUED_TOKENS, GIVEN_TOKENS

CLEAR_SHARE = 0.05
"""Found at one false accusation in a hundred, this share is five times what chance finds."""
CLEAR_AREA = 0.6
"""In so many of all pairs the one that was learnt from scores higher."""

UPDATES_NOT_TESTED = (
    "Whether single updates, which a site sends in every round, give texts back to the coordinator: this audit looked "
    "at the finished models alone. In a simulation, fedrag audit RUN --attack looks at updates too."
)
UPDATES_TESTED_IN_PART = (
    "Other ways to read an update, passages in it, and updates of the generator: one attack on the retriever was "
    "tried, on few questions. A patient attacker finds more."
)
NOT_TESTED = (
    "Attackers who train models of their own for comparison. They find more than the two passes of this audit do.",
    "What a passage shows when it is put in a prompt. Whoever may search a site's passages may read them.",
    "Questions that no split holds back. Without others like them, nothing can be said about those trained on.",
)
"""What nobody should take the audit for."""


def not_tested(result: Mapping[str, Any]) -> list[str]:
    """Return what was not tested, a sentence each."""
    return [UPDATES_TESTED_IN_PART if result.get("reconstruction") else UPDATES_NOT_TESTED, *NOT_TESTED]


def headline(result: Mapping[str, Any]) -> str:
    """Return the one sentence above all others."""
    found = [
        (name, Separation(**figures))
        for part in (result, result.get("canaries", {"membership": {}}))
        for name, figures in part["membership"].items()
    ]
    if not found:
        return "Nothing was trained that could remember a question."
    sure = [(name, one) for name, one in found if one.is_sure]
    if {name for name, _ in sure} != {name for name, _ in found}:
        most = max(one.n_others for _, one in found)
        return f"Too few held-back questions for a headline: {most}, at least {FEWEST_OTHERS} are needed."
    if told := _names(sure, lambda one: one.found_low > CLEAR_SHARE or one.auc_low > CLEAR_AREA):
        return f"Single questions that the {' and the '.join(told)} learnt from can be told from others."
    if better := _names(sure, lambda one: not one.is_at_chance):
        return (
            f"On average the {' and the '.join(better)} {'does' if len(better) == 1 else 'do'} better on questions "
            "learnt from than on others; few single questions, if any, can be told by it."
        )
    if result.get("changed"):
        return "Nothing can be said for certain: the data is not what was trained on. Audit the data that was."
    return "Questions that were trained on cannot be told from others by this audit."


def _names(found: Iterable[tuple[str, Separation]], holds: Callable[[Separation], bool]) -> list[str]:
    """Return the names of the components of which something holds, each once."""
    return list(dict.fromkeys(name for name, one in found if holds(one)))


def sentences(result: Mapping[str, Any]) -> list[str]:
    """Return what was found, a sentence for each measurement."""
    told = [membership_text(name, Separation(**figures)) for name, figures in result["membership"].items()]
    if "answers" in result:
        told.append(_answers_text(result["answers"]))
        told.append(_passages_text(result["passages"]))
    if "canaries" in result:
        told += _canary_texts(result["canaries"])
    if result.get("reconstruction"):
        told.append(reconstruction_text(result["reconstruction"]))
    if changed := result.get("changed"):
        told.append(
            f"The data of {', '.join(changed)} is not what the run trained on: questions there may be taken for the "
            "wrong kind, and its canaries are left out."
        )
    return told


def membership_text(component: str, found: Separation) -> str:
    """Return how well a component's questions can be told from others.

    >>> membership_text("retriever", Separation(80, 200, 0.46, 0.38, 0.55, 0.0125, 0.0003, 0.0677))
    'From the retriever, 80 questions that it learnt from and 200 others: the first score higher in 46 of 100 pairs (95 % interval 38 to 55; 50 is chance). With one false accusation in a hundred, 1.2 % are found (0.0 to 6.8; 1 is chance).'
    """  # noqa: E501 - the sentence is one line
    counts = f"{found.n_members:,} questions that it learnt from and {found.n_others:,} others"
    return _separation_text("the first", found, f"From the {component}, {counts}")


def _separation_text(first: str, found: Separation, begin: str) -> str:
    return (
        f"{begin}: {first} score higher in {100 * found.auc:.0f} of 100 pairs (95 % interval "
        f"{100 * found.auc_low:.0f} to {100 * found.auc_high:.0f}; 50 is chance). With one false accusation in a "
        f"hundred, {_per_cent(found.found)} % are found ({_per_cent(found.found_low)} to "
        f"{_per_cent(found.found_high)}; 1 is chance)."
    )


def _canary_texts(canaries: Mapping[str, Any]) -> list[str]:
    planted, held_back = canaries["planted"], canaries["held_back"]
    told = [
        f"Of {planted + held_back:,} made-up questions, a coin planted {planted:,} among the training questions "
        f"and held {held_back:,} back."
    ]
    for name, figures in canaries["membership"].items():
        text = _separation_text("those planted", Separation(**figures), f"From the {name}")
        told.append(f"{text} {bound_text(EpsilonBound(**canaries['epsilon'][name]))}")
    if "allowed" in canaries:
        told.append(
            f"The noise that was added allows an epsilon of {canaries['allowed']:.2f} at most at any site (delta "
            f"{DELTA:g}), by the sites' own ledgers: what canaries show has to lie below it."
        )
    return told


def bound_text(bound: EpsilonBound) -> str:
    """Return what guesses show of epsilon.

    >>> bound_text(EpsilonBound(1.234, 1e-05, 200, 100, 90))
    'Of 100 guesses, 90 are right: its training leaves more trace of a question than any epsilon below 1.23 allows (delta 1e-05, 95 % sure).'
    """  # noqa: E501 - the sentence is one line
    guesses = f"Of {bound.n_guesses:,} guesses, {bound.n_right:,} are right: "
    if not bound.epsilon:
        return f"{guesses}that may be luck, and shows no least epsilon."
    return (
        f"{guesses}its training leaves more trace of a question than any epsilon below {bound.epsilon:.2f} allows "
        f"(delta {bound.delta:g}, 95 % sure)."
    )


def reconstruction_text(found: Mapping[str, Any]) -> str:
    """Return what an attacker reads out of an update.

    >>> reconstruction_text({"questions": 2, "sites": 6, "tokens": 28, "plain": 13, "other": 1, "sum": 4, "guess": 6})
    'From the update of one site after a single step on 2 questions, whoever runs the coordinator finds 13 of 28 pieces of their words (tokens); from that of another site, by chance, 1; from the sum over 6 sites 4. Guessing the most usual pieces in questions of other sites finds 6.'
    """  # noqa: E501 - the sentence is one line
    text = (
        f"From the update of one site after a single step on {found['questions']} questions, whoever runs the "
        f"coordinator finds {found['plain']} of {found['tokens']} pieces of their words (tokens); from "
        f"that of another site, by chance, {found['other']}"
    )
    if "sum" in found:
        text += f"; from the sum over {found['sites']} sites {found['sum']}"
    return f"{text}. Guessing the most usual pieces in questions of other sites finds {found['guess']}."


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
