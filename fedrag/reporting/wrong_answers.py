"""The report's section on why answers are wrong, before and after training, where a diagnosis was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedrag.diagnosis.advice import advise
from fedrag.diagnosis.causes import CAUSES
from fedrag.diagnosis.kept import read_diagnoses
from fedrag.diagnosis.scenario_lines import Situation
from fedrag.diagnosis.tally import Tally
from fedrag.languages.catalogue import ENGLISH, Words
from fedrag.reporting.verdict import percent
from fedrag.runs.run_folder import RunFolder

_MOMENTS = {"untouched": "before", "trained": "after"}


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


def wrong_answers(run: RunFolder, words: Words = ENGLISH) -> WrongAnswers | None:
    """Return the section of a run; None: nothing was diagnosed.

    Raises:
        RunError: A diagnosis cannot be read.
    """
    found = read_diagnoses(run)
    if found:
        return _of_diagnoses(run, found, words)
    told = {moment: sites for moment, sites in run.told_diagnoses.items() if sites}
    if not told:
        return None
    counts = {moment: sum(map(Tally.from_counts, sites.values()), Tally()) for moment, sites in told.items()}
    names = sorted({name for sites in told.values() for name in sites})
    return WrongAnswers(
        tuple(words(f"wrong.{moment}") for moment in told),
        words("wrong.told", sites=words.listed(names)),
        _rows([tally.to_json() for tally in counts.values()], words),
    )


def _of_diagnoses(run: RunFolder, found: Mapping[str, Mapping[str, Any]], words: Words) -> WrongAnswers:
    last = found.get("trained") or found["untouched"]
    # Two diagnoses stand side by side only if they are of the same questions.
    same = {name: one for name, one in found.items() if _looked_at(one) == _looked_at(last)}
    overall = [one["overall"] for one in same.values()]
    given = [
        (words(f"wrong.given.{name}"), tuple(_share(one["given"][name].get("exact_match"), words) for one in overall))
        for name in ("labelled", "closed_book")
    ]
    shares = tuple(percent(one["answer_in_context"], words=words) for one in overall)
    questions = words(f"split.{last['split']}", n=last["overall"]["counts"]["questions"])
    # said anew: what was kept is English
    situation = Situation.of(run.config, base="trained" not in found)
    advice = advise(Tally.from_counts(last["overall"]["counts"]), situation, words)
    return WrongAnswers(
        tuple(words(f"wrong.{_MOMENTS[name]}") for name in same),
        words("wrong.questions", questions=questions, sites=words("count.sites", n=len(last["sites"]))),
        (*_rows([one["counts"] for one in overall], words), (words("wrong.in_context"), shares), *given),
        (words("wrong.recommendation", headline=advice.headline), *advice.reasons),
        tuple(last["advice"]["scenario"]),
    )


def _share(value: float | None, words: Words) -> str:
    return "–" if value is None else percent(value, words=words)


def _looked_at(diagnosis: Mapping[str, Any]) -> tuple[Any, ...]:
    return diagnosis["split"], sorted(diagnosis["sites"]), diagnosis["overall"]["counts"]["questions"]


def _rows(counts: Sequence[Mapping[str, float]], words: Words) -> tuple[tuple[str, tuple[str, ...]], ...]:
    titles = {name: words(f"cause.{name}") for name in ("right", *CAUSES)}
    return tuple(
        (title[0].upper() + title[1:], tuple(percent(one[name] / one["questions"], words=words) for one in counts))
        for name, title in titles.items()
    )
