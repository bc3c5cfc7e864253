"""Which delivered models come into use: a verdict by the site's own validation questions, and what follows from it.

Models are compared with those in use, or with the untouched ones where none are: question by question, by the token F1
of the answers, or by MRR where no answer can be measured. They are no worse if their mean is no lower. With fewer
than 30 questions that is not to be told, and a person decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from fedrag.errors import ConfigError
from fedrag.evaluation.records import TITLES, Measured, scores_by_question
from fedrag.evaluation.significance import FEW_QUESTIONS
from fedrag.site.delivery import Delivery, changing, current_delivery, deliveries
from fedrag.site.site_config import Policy
from fedrag.text import plural

UNTOUCHED = "the untouched models"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How delivered models did on the site's validation questions.

    Attributes:
        outcome: Whether they are no worse; "unknown" where that cannot be told.
        against: The run that was in use, or `UNTOUCHED`.
        n_questions: Questions that both were measured on.
        metric: The metric that decided; empty where nothing was measured.
        before: Its mean for the models in use.
        after: Its mean for the delivered ones.
        why: Why it is unknown, if not for the number of questions.
    """

    outcome: Literal["no worse", "worse", "unknown"]
    against: str = UNTOUCHED
    n_questions: int = 0
    metric: str = ""
    before: float = 0.0
    after: float = 0.0
    why: str = ""

    @property
    def text(self) -> str:
        """The verdict with its figures.

        >>> Verdict("no worse", n_questions=49, metric="f1", before=0.4, after=0.431).text
        'no worse: F1 43.1 per cent, of the untouched models 40.0, on 49 validation questions'
        """
        if not self.metric:
            return f"cannot be told: {self.why}"
        figures = (
            f"{TITLES[self.metric]} {100 * self.after:.1f} per cent, of {self.against} {100 * self.before:.1f}, on "
            f"{plural(self.n_questions, 'validation question')}"
        )
        return f"too few questions to tell: {figures}" if self.outcome == "unknown" else f"{self.outcome}: {figures}"


def judge(before: Sequence[Measured], after: Sequence[Measured], against: str) -> Verdict:
    """Compare two sets of models on the same validation questions.

    Args:
        before: What the models in use scored.
        after: What the delivered ones scored.
        against: Who the models in use are.
    """
    ours, theirs = scores_by_question(before), scores_by_question(after)
    for metric in ("f1", "mrr"):
        pairs = [
            (a, b)
            for key in ours.keys() & theirs.keys()
            if (a := ours[key][metric]) is not None and (b := theirs[key][metric]) is not None
        ]
        if pairs:
            means = (sum(a for a, _ in pairs) / len(pairs), sum(b for _, b in pairs) / len(pairs))
            no_worse: Literal["no worse", "worse"] = "no worse" if means[1] >= means[0] - 1e-12 else "worse"
            outcome = no_worse if len(pairs) >= FEW_QUESTIONS else "unknown"
            return Verdict(outcome, against, len(pairs), metric, *means)
    return Verdict("unknown", against, why="this site has no validation questions")


def decides_for(policy: Policy, verdict: Verdict) -> bool:
    """Return whether a policy adopts models by itself, given their verdict."""
    return policy.adopt == "always" or (policy.adopt == "if-better" and verdict.outcome == "no worse")


def record_verdict(folder: Path, judged: Delivery, verdict: Verdict, *, adopts: bool) -> None:
    """Record a verdict, and adopt the models where it says so; what arrived or was decided meanwhile stays as it is."""
    with changing(folder) as found:
        for place, delivery in enumerate(found):
            if delivery.sha256 == judged.sha256 and delivery.run == judged.run and delivery.is_to_be_judged:
                told = replace(delivery, verdict=asdict(verdict), adopted=adopts)
                found[place : place + 1] = [] if adopts else [told]
                found += [told] if adopts else []
                return


def adopt(folder: Path, run: str | None = None) -> Delivery:
    """Take delivered models into use, because a person says so.

    Args:
        folder: The site's folder.
        run: Name of their run, even one that was taken back; None: the latest that waits.

    Raises:
        ConfigError: There are none such, or they are in use.
    """
    known = deliveries(folder)
    chosen = _latest_that_waits(folder, known) if run is None else _named(folder, known, run)
    if chosen == current_delivery(known):
        raise ConfigError(f"{folder}: {chosen.run} is current already")
    adopted = replace(chosen, adopted=True, taken_back=False)
    with changing(folder) as found:
        found[:] = [delivery for delivery in found if delivery.run != chosen.run]
        found.append(adopted)
    return adopted


def state_of(delivery: Delivery, current: Delivery | None) -> str:
    """Return in a few words what became of a delivery."""
    if delivery.taken_back:
        return "taken back"
    if delivery.adopted:
        return "current" if delivery == current else "earlier"
    if delivery.is_to_be_judged:
        return "to be measured"
    return "not adopted" if delivery.verdict["outcome"] == "worse" else "waits for you"


def verdict_line(folder: Path, delivery: Delivery) -> str:
    """Return what was found about a delivery, and what to type where a person decides; "" where nothing was."""
    if not delivery.verdict:
        return ""
    text = f"{delivery.run}: {Verdict(**delivery.verdict).text}"
    if delivery.adopted or delivery.taken_back:
        return text
    waits = "not adopted" if delivery.verdict["outcome"] == "worse" else "it waits for you"
    return f"{text}; {waits}; to take it into use: fedrag client adopt {folder} {delivery.run}"


def _latest_that_waits(folder: Path, found: Sequence[Delivery]) -> Delivery:
    """Return the latest delivery that waits; one that did worse is taken only by its name."""
    waiting = [delivery for delivery in found if not (delivery.adopted or delivery.taken_back)]
    worse = [delivery for delivery in waiting if delivery.verdict.get("outcome") == "worse"]
    if left := [delivery for delivery in waiting if delivery not in worse]:
        return left[-1]
    if worse:
        raise ConfigError(verdict_line(folder, worse[-1]))
    raise ConfigError(f"{folder}: no delivered models wait to be adopted; fedrag client models lists them")


def _named(folder: Path, found: Sequence[Delivery], run: str) -> Delivery:
    named = {delivery.run: delivery for delivery in found}
    if run not in named:
        raise ConfigError(
            f"{folder}: no models of a run {run!r} were delivered; there are: {', '.join(named) or 'none'}"
        )
    return named[run]
