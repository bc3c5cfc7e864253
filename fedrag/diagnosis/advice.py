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
from fedrag.languages.catalogue import ENGLISH, Words

Part = Literal["retriever", "generator", "documents", "limits"]
Recommendation = Literal["retriever", "generator", "both", "documents", "limits", "nothing"]

NAMED_SHARE = 0.25
"""Least share of the wrong answers of which a part is named."""


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


def advise(tally: Tally, situation: Situation, words: Words = ENGLISH) -> Advice:
    """Return what to change.

    Args:
        tally: Counts of at least one question.
        situation: What was diagnosed.
        words: The language.
    """
    parts = named_parts(tally)
    recommendation = _recommendation(parts)
    reasons = [_REASONS[part](tally, situation, words) for part in parts]
    reasons += _besides(tally, parts, situation.config, words)
    lines = scenario_lines(parts, tally, situation)
    return Advice(recommendation, words(f"advice.headline.{recommendation}"), tuple(reasons), lines)


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


def _of_wrong(count: float, tally: Tally, words: Words) -> str:
    return words("advice.of_wrong", wrong=share(count, tally.wrong), all=share(count, tally.questions))


def share(count: float, total: float) -> str:
    """Return a share in per cent.

    >>> share(1, 3)
    '33 %'
    """
    return f"{100 * count / total:.0f} %" if total else "0 %"


def _retriever(tally: Tally, situation: Situation, words: Words) -> str:
    if not situation.config.rag.passages:
        return words("advice.retriever.no_search")
    said = [words("advice.retriever.missed", share=_of_wrong(tally.not_found, tally, words))]
    given, found = share(tally.labelled_given, tally.labelled), share(tally.labelled_found, tally.labelled)
    if tally.labelled_given > tally.labelled_found:
        said.append(words("advice.retriever.gain", given=given, found=found))
    elif tally.labelled:
        said.append(words("advice.retriever.no_gain", given=given))
    if situation.config.rag.search == "bm25":
        said.append(words("advice.retriever.bm25"))
    return words.spaced(said)


def _generator(tally: Tally, situation: Situation, words: Words) -> str:
    said = [words("advice.generator.wrong", share=_of_wrong(tally.not_used + tally.worded_otherwise, tally, words))]
    if tally.worded_otherwise:
        said.append(words("advice.generator.worded", share=share(tally.worded_otherwise, tally.questions)))
    if tally.ran_on:
        limit = situation.config.rag.answer_tokens
        said.append(words("advice.generator.ran_on", share=share(tally.ran_on, tally.questions), tokens=f"{limit}"))
    if tally.labelled:
        said.append(words("advice.generator.given", share=share(tally.labelled_given, tally.labelled)))
    return words.spaced(said)


def _documents(tally: Tally, situation: Situation, words: Words) -> str:
    return words("advice.documents", share=_of_wrong(tally.not_in_corpus, tally, words))


def _limits(tally: Tally, situation: Situation, words: Words) -> str:
    rag = situation.config.rag
    return words(
        "advice.limits",
        share=_of_wrong(tally.cut, tally, words),
        prompts=round(tally.cut - tally.too_long),
        prompt_tokens=f"{rag.prompt_tokens}",
        answers=round(tally.too_long),
        answer_tokens=f"{rag.answer_tokens}",
    )


_REASONS = {"retriever": _retriever, "generator": _generator, "documents": _documents, "limits": _limits}


def _besides(tally: Tally, parts: Sequence[Part], config: Config, words: Words) -> Iterator[str]:
    """Yield what else the figures show."""
    if "retriever" in parts and config.rag.passages and tally.near >= max(1.0, tally.not_found / 2):
        yield words("advice.near", share=share(tally.near, tally.not_found), near=NEAR)
    if config.rag.passages and tally.right and tally.closed_book >= tally.right:
        without, with_passages = share(tally.closed_book, tally.questions), share(tally.right, tally.questions)
        yield words("advice.no_help", without=without, with_passages=with_passages)
    if tally.questions >= 2 and tally.questions < FEW_QUESTIONS:  # a site may tell shares of 1
        yield words("advice.few", n=int(tally.questions))
