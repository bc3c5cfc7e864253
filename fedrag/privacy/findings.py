"""What an audit found, in sentences for whoever answers for the data. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fedrag.languages.catalogue import ENGLISH, Words
from fedrag.privacy.membership import FEWEST_OTHERS, Separation
from fedrag.privacy.one_run import DELTA, EpsilonBound
from fedrag.privacy.regurgitation import CONTINUED_TOKENS, GIVEN_TOKENS

CLEAR_SHARE = 0.05
"""Found at one false accusation in a hundred, this share is five times what chance finds."""
CLEAR_AREA = 0.6
"""In so many of all pairs the one that was learnt from scores higher."""


def not_tested(result: Mapping[str, Any], words: Words = ENGLISH) -> list[str]:
    """Return what was not tested, a sentence each: what nobody should take the audit for."""
    updates = "updates_in_part" if result.get("reconstruction") else "updates"
    return [words(f"untested.{name}") for name in (updates, "shadow_models", "prompts", "no_others")]


def headline(result: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """Return the one sentence above all others."""
    found = [
        (name, Separation(**figures))
        for part in (result, result.get("canaries", {"membership": {}}))
        for name, figures in part["membership"].items()
    ]
    if not found:
        return words("headline.nothing")
    sure = [(name, one) for name, one in found if one.is_sure]
    if {name for name, _ in sure} != {name for name, _ in found}:
        return words("headline.few", most=max(one.n_others for _, one in found), needed=FEWEST_OTHERS)
    if told := _names(sure, lambda one: one.found_low > CLEAR_SHARE or one.auc_low > CLEAR_AREA):
        return words("headline.clear", components=_components(told, words))
    if better := _names(sure, lambda one: not one.is_at_chance):
        return words("headline.average", components=_components(better, words), n=len(better))
    if result.get("changed"):
        return words("headline.changed")
    return words("headline.chance")


def _components(names: Sequence[str], words: Words) -> str:
    return words.unfilled("finding.and").join(map(words.component, names))


def _names(found: Iterable[tuple[str, Separation]], holds: Callable[[Separation], bool]) -> list[str]:
    """Return the names of the components of which something holds, each once."""
    return list(dict.fromkeys(name for name, one in found if holds(one)))


def sentences(result: Mapping[str, Any], words: Words = ENGLISH) -> list[str]:
    """Return what was found, a sentence for each measurement."""
    told = [membership_text(name, Separation(**figures), words) for name, figures in result["membership"].items()]
    if "answers" in result:
        told.append(_answers_text(result["answers"], words))
        told.append(_passages_text(result["passages"], words))
    if "canaries" in result:
        told += _canary_texts(result["canaries"], words)
    if result.get("reconstruction"):
        told.append(reconstruction_text(result["reconstruction"], words))
    if changed := result.get("changed"):
        told.append(words("finding.changed", sites=words.listed(changed)))
    return told


def membership_text(component: str, found: Separation, words: Words = ENGLISH) -> str:
    """Return how well a component's questions can be told from others.

    >>> membership_text("retriever", Separation(80, 200, 0.46, 0.38, 0.55, 0.0125, 0.0003, 0.0677))
    'From the retriever, 80 questions that it learnt from and 200 others: the first score higher in 46 of 100 pairs (95 % interval 38 to 55; 50 is chance). With one false accusation in a hundred, 1.2 % are found (0.0 to 6.8; 1 is chance).'
    """  # noqa: E501 - the sentence is one line
    name = words.component(component)
    pairs = words("finding.members", component=name, members=found.n_members, others=found.n_others, **_pairs(found))
    return words.spaced([pairs, _found_text(found, words)])


def _pairs(found: Separation) -> dict[str, int]:
    """Return in how many of 100 pairs what was learnt from scores higher, and the interval of that."""
    areas = {"area": found.auc, "low": found.auc_low, "high": found.auc_high}
    return {name: round(100 * area) for name, area in areas.items()}


def _found_text(found: Separation, words: Words) -> str:
    shares = {"found": found.found, "low": found.found_low, "high": found.found_high}
    return words("finding.found", **{name: words.number(f"{100 * share:.1f}") for name, share in shares.items()})


def _canary_texts(canaries: Mapping[str, Any], words: Words) -> list[str]:
    planted, held_back = canaries["planted"], canaries["held_back"]
    told = [words("finding.planted", all=planted + held_back, planted=planted, held_back=held_back)]
    for name, figures in canaries["membership"].items():
        found = Separation(**figures)
        pairs = words("finding.canaries", component=words.component(name), **_pairs(found))
        bound = bound_text(EpsilonBound(**canaries["epsilon"][name]), words)
        told.append(words.spaced([pairs, _found_text(found, words), bound]))
    if "allowed" in canaries:
        allowed = words.number(f"{canaries['allowed']:.2f}")
        told.append(words("finding.allowed", epsilon=allowed, delta=words.number(f"{DELTA:g}")))
    return told


def bound_text(bound: EpsilonBound, words: Words = ENGLISH) -> str:
    """Return what guesses show of epsilon.

    >>> bound_text(EpsilonBound(1.234, 1e-05, 200, 100, 90))
    'Of 100 guesses, 90 are right: its training leaves more trace of a question than any epsilon below 1.23 allows (delta 1e-05, 95 % sure).'
    """  # noqa: E501 - the sentence is one line
    guesses = {"guesses": bound.n_guesses, "right": bound.n_right}
    if not bound.epsilon:
        return words("finding.luck", **guesses)
    figures = {"epsilon": words.number(f"{bound.epsilon:.2f}"), "delta": words.number(f"{bound.delta:g}")}
    return words("finding.bound", **guesses, **figures)


def reconstruction_text(found: Mapping[str, Any], words: Words = ENGLISH) -> str:
    """Return what an attacker reads out of an update.

    >>> reconstruction_text({"questions": 2, "sites": 6, "tokens": 28, "plain": 13, "other": 1, "sum": 4, "guess": 6})
    'From the update of one site after a single step on 2 questions, whoever runs the coordinator finds 13 of 28 pieces of their words (tokens); from that of another site, by chance, 1; from the sum over 6 sites 4. Guessing the most usual pieces in questions of other sites finds 6.'
    """  # noqa: E501 - the sentence is one line
    counts = {name: found[name] for name in ("questions", "tokens", "plain", "other", "guess")}
    if "sum" in found:
        return words("finding.update_and_sum", **counts, sites=found["sites"], sum=found["sum"])
    return words("finding.update", **counts)


def _answers_text(answers: Mapping[str, Any], words: Words) -> str:
    ours, theirs = answers["members"], answers["others"]
    shares = {"members": ours["trained"], "others": theirs["trained"]}
    before = {"members_before": ours["untouched"], "others_before": theirs["untouched"]}
    told = {name: words("finding.of", hits=of["hits"], n=of["n"]) for name, of in (shares | before).items()}
    return words("finding.answers", **told)


def _passages_text(passages: Mapping[str, Any], words: Words) -> str:
    trained, untouched = passages["trained"], passages["untouched"]
    if not trained["n"]:
        return words("finding.no_passages")
    return words(
        "finding.passages",
        given=GIVEN_TOKENS,
        continued=CONTINUED_TOKENS,
        hits=trained["hits"],
        all=trained["n"],
        before=untouched["hits"],
    )
