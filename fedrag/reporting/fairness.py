"""What tells whether arms were compared fairly: what each trained, which rates it tried, which questions were seen."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fedrag.evaluation.records import ARMS, TITLES, QuestionKey, Scores
from fedrag.files import read_json
from fedrag.languages.catalogue import ENGLISH, Words
from fedrag.reporting.arms import Line, overall_lines
from fedrag.reporting.verdict import percent
from fedrag.runs.rate_tries import SCORED_BY, RateTries, rate_text
from fedrag.runs.run_folder import RunFolder
from fedrag.runs.training_totals import TrainingTotal


@dataclass(frozen=True, slots=True)
class Trained:
    """What an arm did to train one component.

    Attributes:
        arm: Title of the arm.
        component: The component.
        rate: Its peak learning rate.
        total: Steps and questions.
    """

    arm: str
    component: str
    rate: str
    total: TrainingTotal


@dataclass(frozen=True, slots=True)
class Tried:
    """The learning rates that an arm tried for one component.

    Attributes:
        arm: Title of the arm.
        component: The component, and what it was scored by.
        scores: Score of each rate in per cent; None: it could not be trained.
        best: The rate that was taken.
    """

    arm: str
    component: str
    scores: dict[str, str | None]
    best: str


def trainings(run: RunFolder, words: Words = ENGLISH) -> list[Trained]:
    """Return what each arm trained; nothing where the run is not finished, or an older one did not write it down."""
    path = run.path / "results.json"
    told = read_json(path).get("training", {}) if path.is_file() else {}
    return [
        Trained(
            words(f"arm.{arm}"), words.component(component), rate_text(total["learning_rate"]), TrainingTotal(**total)
        )
        for arm, totals in told.items()
        for component, total in totals.items()
    ]


def tried_rates(run: RunFolder, words: Words = ENGLISH) -> list[Tried]:
    """Return the learning rates that the arms tried so far."""
    rows: list[Tried] = []
    for arm in ARMS:
        tries = RateTries(run.path, arm)
        for component, best in tries.best().items():
            told = {rate_text(rate): scores.get(component) for rate, scores in tries.scores().items()}
            scores = {rate: None if score is None else percent(score, words=words) for rate, score in told.items()}
            scored = words.listed([words.component(component), TITLES[SCORED_BY[component]]])
            rows.append(Tried(words(f"arm.{arm}"), scored, scores, rate_text(best)))
    return rows


def without_seen(scores: Mapping[str, Scores], seen: set[QuestionKey]) -> tuple[set[QuestionKey], list[Line]]:
    """Return which measured questions other sites train on, and a line for each metric without them.

    Args:
        scores: The metrics of each question, by arm.
        seen: The questions whose text another site trains on.
    """
    measured = {key for arm in scores.values() for key in arm}
    seen = seen & measured
    if not seen or len(seen) == len(measured):
        return seen, []
    others = {arm: {key: m for key, m in found.items() if key not in seen} for arm, found in scores.items()}
    return seen, overall_lines(others)


def seen_text(scores: Mapping[str, Scores], seen: Collection[QuestionKey], words: Words = ENGLISH) -> str:
    """Return, in words, how many measured questions other sites train on; "" where that is none."""
    n_questions = len({key for arm in scores.values() for key in arm})
    if not seen:
        return ""
    return words("seen.all" if len(seen) == n_questions else "seen.some", seen=len(seen), n=n_questions)
