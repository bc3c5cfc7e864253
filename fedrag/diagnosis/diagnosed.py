"""One question's diagnosis: what the generator answered, by what it was given, and why that is wrong. No torch here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from fedrag.diagnosis.causes import Cause

Given = Literal["found", "labelled", "closed_book"]
GIVEN: tuple[Given, ...] = get_args(Given)
"""What the generator is given: the passages that were found, those that the question labels, or none."""


@dataclass(frozen=True, slots=True)
class Generated:
    """An answer that was generated.

    Attributes:
        text: The answer.
        prompt_tokens: Tokens of its prompts.
        answer_tokens: Tokens that were generated.
        seconds: Time to generate it: its share of that of its batches.
        is_stopped: Whether it was stopped before it ended.
    """

    text: str
    prompt_tokens: int
    answer_tokens: int
    seconds: float
    is_stopped: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """The answer to a question, given some passages.

    Attributes:
        exact_match: Whether it matches a right answer.
        f1: Its token F1.
        generated: The answer, its tokens and its time.
    """

    exact_match: float
    f1: float
    generated: Generated


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """One question's diagnosis.

    Attributes:
        site: Name of the site.
        question_id: The question's id there.
        cause: Why the answer is wrong; None: it is right.
        in_context: Whether a right answer stands, word for word, in what the generator read.
        rank: Rank of the best labelled passage, from 1; None: none was ranked.
        answer_needs: Tokens of the shortest right answer.
        is_too_long: Whether these are more than `rag.answer_tokens`.
        is_stopped: Whether the answer was stopped at `rag.answer_tokens`.
        trials: What the generator answered, by what it was given; without `labelled` where nothing is labelled.
    """

    site: str
    question_id: str
    cause: Cause | None
    in_context: bool
    rank: int | None
    answer_needs: int
    is_too_long: bool
    is_stopped: bool
    trials: dict[Given, Trial]

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {**asdict(self), "cause": self.cause or "right", "trials": _flat(self.trials)}


def _flat(trials: dict[Given, Trial]) -> dict[str, Any]:
    return {
        given: {"exact_match": trial.exact_match, "f1": trial.f1, **asdict(trial.generated)}
        for given, trial in trials.items()
    }
