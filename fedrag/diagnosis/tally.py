"""What a diagnosis counts: numbers that can be added up over sites, and leave one where its policy allows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from fedrag.diagnosis.causes import CAUSES, Cause
from fedrag.diagnosis.diagnosed import GIVEN, Diagnosed, Given, Trial

NEAR = 5
"""A labelled passage that was not given, but ranks no lower than this, is near."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of diagnosed questions; a float where a site tells shares instead.

    Attributes:
        questions: Questions with a right answer.
        right: Those that were answered right, and then those of each cause.
        in_context: Those with a right answer, word for word, in what the generator read.
        closed_book: Those that are right without any passage.
        labelled: Those with a labelled passage in the corpus; of these,
        labelled_found: those that are right given what was found,
        labelled_given: those that are right given the labelled passage.
        recovered: Those whose passage was not found, and that are right given the labelled one.
        too_long: Those that were cut because no right answer fits into `rag.answer_tokens`; of the other ones that were
            cut, the prompt lacks what is needed.
        ran_on: Those that had all they needed (`not_used`) and were stopped at `rag.answer_tokens`.
        near: Those whose labelled passage was not found, but ranks among the first `NEAR`.
    """

    questions: float = 0
    right: float = 0
    worded_otherwise: float = 0
    not_in_corpus: float = 0
    not_found: float = 0
    cut: float = 0
    not_used: float = 0
    in_context: float = 0
    closed_book: float = 0
    labelled: float = 0
    labelled_found: float = 0
    labelled_given: float = 0
    recovered: float = 0
    too_long: float = 0
    ran_on: float = 0
    near: float = 0

    @property
    def wrong(self) -> float:
        """Questions that were not answered right."""
        return self.questions - self.right

    def of(self, cause: Cause) -> float:
        """Return how many answers have a cause."""
        return float(getattr(self, cause))

    def __add__(self, other: Tally) -> Tally:
        return Tally(**{name: getattr(self, name) + getattr(other, name) for name in COUNTS})

    def to_json(self) -> dict[str, float]:
        """Return the counts by name."""
        return asdict(self)

    @classmethod
    def from_counts(cls, counts: Mapping[str, float]) -> Tally:
        """Return a tally of counts by name; what is missing is 0."""
        return cls(**{name: counts[name] for name in COUNTS if name in counts})


COUNTS: tuple[str, ...] = tuple(field.name for field in fields(Tally))
"""The names of all counts."""


def tally_of(diagnosed: Iterable[Diagnosed]) -> Tally:
    """Count the questions of a diagnosis."""
    total = Tally()
    for one in diagnosed:
        total += _counted(one)
    return total


def _counted(one: Diagnosed) -> Tally:
    found, labelled = one.trials["found"], one.trials.get("labelled")
    missed = one.cause == "not_found"
    counts: dict[str, float] = {
        "questions": 1,
        "right": one.cause is None,
        **{cause: one.cause == cause for cause in CAUSES},
        "in_context": one.in_context,
        "closed_book": one.trials["closed_book"].exact_match,
        "too_long": one.cause == "cut" and one.is_too_long,
        "ran_on": one.cause == "not_used" and one.is_stopped,
        "near": missed and one.rank is not None and one.rank <= NEAR,
    }
    if labelled is not None:
        counts |= {
            "labelled": 1,
            "labelled_found": found.exact_match,
            "labelled_given": labelled.exact_match,
            "recovered": missed and labelled.exact_match,
        }
    return Tally(**{name: int(value) for name, value in counts.items()})


def means_of(diagnosed: Sequence[Diagnosed]) -> dict[Given, dict[str, float]]:
    """Return, by what was given, the number of questions and the means of what their answers scored and cost."""
    return {given: _means([one.trials[given] for one in diagnosed if given in one.trials]) for given in GIVEN}


def _means(trials: Sequence[Trial]) -> dict[str, float]:
    n = len(trials)
    if not n:
        return {"n_questions": 0}
    return {
        "n_questions": n,
        "exact_match": sum(trial.exact_match for trial in trials) / n,
        "f1": sum(trial.f1 for trial in trials) / n,
        "seconds": sum(trial.generated.seconds for trial in trials) / n,
        "prompt_tokens": sum(trial.generated.prompt_tokens for trial in trials) / n,
        "answer_tokens": sum(trial.generated.answer_tokens for trial in trials) / n,
    }
