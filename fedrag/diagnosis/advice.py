"""What to change, by the causes of the wrong answers: which part to train, or what else to do, and the figure why.

Each cause points at what mends it: `not_found` at the retriever, `not_used` and `worded_otherwise` at the generator,
`not_in_corpus` at the documents, `cut` at the limits of prompts and answers. What has at least a quarter of the wrong
answers, and in any case what has most of them, is named. Where it is the retriever alone, it must also pay: if the
generator answers fewer than half of the questions whose passage was missed even when it is given the labelled passage,
it has to learn too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fedrag.config.scenario import Config
from fedrag.diagnosis.scenario_lines import Situation, scenario_lines
from fedrag.diagnosis.tally import NEAR, Tally
from fedrag.evaluation.significance import FEW_QUESTIONS
from fedrag.text import plural

Part = Literal["retriever", "generator", "documents", "limits"]
Recommendation = Literal["retriever", "generator", "both", "documents", "limits", "nothing"]

NAMED_SHARE = 0.25
"""Least share of the wrong answers of which a part is named."""

_HEADLINES: dict[Recommendation, str] = {
    "retriever": "train the retriever",
    "generator": "train the generator",
    "both": "train both, retriever and generator",
    "documents": "add documents",
    "limits": "raise the limits of prompts and answers",
    "nothing": "nothing: every answer is right",
}


@dataclass(frozen=True, slots=True)
class Advice:
    """A recommendation.

    Attributes:
        recommendation: What to do first.
        headline: The same in words.
        reasons: A sentence for each part that is named, with the figure that led to it, and what to know besides.
        scenario: Lines to set in the scenario.
    """

    recommendation: Recommendation
    headline: str
    reasons: tuple[str, ...]
    scenario: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


def advise(tally: Tally, situation: Situation) -> Advice:
    """Return what to change.

    Args:
        tally: Counts of at least one question.
        situation: What was diagnosed.
    """
    parts = named_parts(tally)
    recommendation = _recommendation(parts)
    reasons = [*(_REASONS[part](tally, situation) for part in parts), *_besides(tally, parts, situation.config)]
    lines = scenario_lines(parts, tally, situation)
    return Advice(recommendation, _HEADLINES[recommendation], tuple(reasons), lines)


def named_parts(tally: Tally) -> list[Part]:
    """Return the parts that have enough of the wrong answers, the one with most first.

    >>> named_parts(Tally(questions=100, right=40, not_found=40, recovered=30, not_used=10, worded_otherwise=8))
    ['retriever', 'generator']
    """
    if not tally.wrong:
        return []
    shares: dict[Part, float] = {
        "retriever": tally.not_found,
        "generator": tally.not_used + tally.worded_otherwise,
        "documents": tally.not_in_corpus,
        "limits": tally.cut,
    }
    ordered = sorted(shares, key=lambda part: -shares[part])
    named = [part for part in ordered if shares[part] >= NAMED_SHARE * tally.wrong] or ordered[:1]
    if "retriever" in named and "generator" not in named and _pays_little(tally):
        named.append("generator")
    return named


def _pays_little(tally: Tally) -> bool:
    """Return whether the generator answers few of the questions whose passage was missed, once it is given it."""
    return bool(tally.labelled) and tally.recovered < tally.not_found / 2


def _recommendation(parts: Sequence[Part]) -> Recommendation:
    if not parts:
        return "nothing"
    learning = [part for part in parts if part in ("retriever", "generator")]
    return "both" if parts[0] in learning and len(learning) == 2 else parts[0]


def _of_wrong(count: float, tally: Tally) -> str:
    return f"{share(count, tally.wrong)} of the wrong answers ({share(count, tally.questions)} of all)"


def share(count: float, total: float) -> str:
    """Return a share in per cent.

    >>> share(1, 3)
    '33 %'
    """
    return f"{100 * count / total:.0f} %" if total else "0 %"


def _retriever(tally: Tally, situation: Situation) -> str:
    if not situation.config.rag.passages:
        return "Nothing is searched (rag.passages = 0), so no passage with the answer is found."
    text = f"Retriever: the passage with the answer was not found in {_of_wrong(tally.not_found, tally)}."
    given, found = share(tally.labelled_given, tally.labelled), share(tally.labelled_found, tally.labelled)
    if tally.labelled_given > tally.labelled_found:
        text += (
            f" Given the labelled passage instead, {given} of the answers would match exactly instead of {found}: that "
            "is the most that a better search can bring with this generator."
        )
    elif tally.labelled:
        text += f" With this generator a better search alone brings nothing: given the labelled passage, {given} match."
    if situation.config.rag.search == "bm25":
        text += (
            ' Search is by words alone (rag.search = "bm25"): a retriever that learns is used by "hybrid" or "dense".'
        )
    return text


def _generator(tally: Tally, situation: Situation) -> str:
    text = (
        f"Generator: the passage was found and the answer is wrong, or right in other words, in "
        f"{_of_wrong(tally.not_used + tally.worded_otherwise, tally)}."
    )
    if tally.worded_otherwise:
        text += (
            f" {share(tally.worded_otherwise, tally.questions)} of all answers are right but worded otherwise; "
            "training teaches it how your answers are worded."
        )
    if tally.ran_on:
        limit = situation.config.rag.answer_tokens
        text += (
            f" {share(tally.ran_on, tally.questions)} run on until they are stopped at {limit} tokens, although a "
            "right answer fits."
        )
    if tally.labelled:
        text += f" Even given the labelled passage, only {share(tally.labelled_given, tally.labelled)} match exactly."
    return text


def _documents(tally: Tally, situation: Situation) -> str:
    return (
        f"Documents: no passage holds the answer in {_of_wrong(tally.not_in_corpus, tally)}. No training mends that: "
        "add the documents that do to the site's passages."
    )


def _limits(tally: Tally, situation: Situation) -> str:
    rag = situation.config.rag
    return (
        f"Limits: no room was left for {_of_wrong(tally.cut, tally)}: in {tally.cut - tally.too_long:,.0f} the prompt "
        f"(rag.prompt_tokens = {rag.prompt_tokens}) lacks the part of the passage that holds the answer, or a part of "
        f"the question; in {tally.too_long:,.0f} no right answer fits into rag.answer_tokens = {rag.answer_tokens}."
    )


_REASONS = {"retriever": _retriever, "generator": _generator, "documents": _documents, "limits": _limits}


def _besides(tally: Tally, parts: Sequence[Part], config: Config) -> Iterator[str]:
    """Yield what else the figures show."""
    if "retriever" in parts and config.rag.passages and tally.near >= max(1.0, tally.not_found / 2):
        yield (
            f"Of the passages that were not found, {share(tally.near, tally.not_found)} rank among the first {NEAR}: "
            f"rag.passages = {NEAR} would show them without any training, in longer prompts."
        )
    if config.rag.passages and tally.right and tally.closed_book >= tally.right:
        yield (
            f"Without any passage {share(tally.closed_book, tally.questions)} match exactly, with passages "
            f"{share(tally.right, tally.questions)}: so far the passages do not help."
        )
    if tally.questions >= 2 and tally.questions < FEW_QUESTIONS:  # a site may tell shares of 1
        yield f"These are {plural(int(tally.questions), 'question')}: so few tell little."
