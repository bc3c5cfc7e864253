"""The report's section on why answers are wrong, before and after training, where a diagnosis was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedrag.diagnosis.causes import TITLES
from fedrag.diagnosis.kept import read_diagnoses
from fedrag.diagnosis.tally import Tally
from fedrag.reporting.verdict import percent
from fedrag.runs.run_folder import RunFolder
from fedrag.text import plural

_MOMENTS = {"untouched": "Before training", "trained": "After training"}


@dataclass(frozen=True, slots=True)
class WrongAnswers:
    """What the section shows.

    Attributes:
        moments: The columns: before training, after it, or one of them.
        questions: What was diagnosed, in words.
        rows: Name of each figure, with its value for each column.
        advice: The recommendation, and its reasons, of the last column; none in a deployment.
        scenario: Lines to set.
    """

    moments: tuple[str, ...]
    questions: str
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    advice: tuple[str, ...] = ()
    scenario: tuple[str, ...] = ()


def wrong_answers(run: RunFolder) -> WrongAnswers | None:
    """Return the section of a run; None: nothing was diagnosed.

    Raises:
        RunError: A diagnosis cannot be read.
    """
    found = read_diagnoses(run)
    if found:
        return _of_diagnoses(found)
    told = {moment: sites for moment, sites in run.told_diagnoses.items() if sites}
    if not told:
        return None
    counts = {moment: sum(map(Tally.from_counts, sites.values()), Tally()) for moment, sites in told.items()}
    names = sorted({name for sites in told.values() for name in sites})
    return WrongAnswers(
        tuple(f"{moment} training".capitalize() for moment in told),
        f"Validation questions of {', '.join(names)}, as these sites told",
        _rows([tally.to_json() for tally in counts.values()]),
    )


def _of_diagnoses(found: Mapping[str, Mapping[str, Any]]) -> WrongAnswers:
    last = found.get("trained") or found["untouched"]
    # Two diagnoses stand side by side only if they are of the same questions.
    same = {name: one for name, one in found.items() if _looked_at(one) == _looked_at(last)}
    overall = [one["overall"] for one in same.values()]
    given = [
        (f"Right given {words}", tuple(_share(one["given"][name].get("exact_match")) for one in overall))
        for name, words in (("labelled", "the labelled passages"), ("closed_book", "no passages (closed book)"))
    ]
    in_context = ("Answer in context, word for word", tuple(percent(one["answer_in_context"]) for one in overall))
    split = "" if last["split"] == "all" else f" {last['split']}"
    n_questions, sites = last["overall"]["counts"]["questions"], plural(len(last["sites"]), "site")
    questions = f"{n_questions:,}{split} questions of {sites}"
    advice = last["advice"]
    return WrongAnswers(
        tuple(_MOMENTS[name] for name in same),
        questions,
        (*_rows([one["counts"] for one in overall]), in_context, *given),
        (f"Recommendation: {advice['headline']}.", *advice["reasons"]),
        tuple(advice["scenario"]),
    )


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _looked_at(diagnosis: Mapping[str, Any]) -> tuple[Any, ...]:
    return diagnosis["split"], sorted(diagnosis["sites"]), diagnosis["overall"]["counts"]["questions"]


def _rows(counts: Sequence[Mapping[str, float]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    names: list[tuple[str, str]] = [("right", "right"), *TITLES.items()]
    return tuple(
        (words[0].upper() + words[1:], tuple(percent(one[name] / one["questions"]) for one in counts))
        for name, words in names
    )
