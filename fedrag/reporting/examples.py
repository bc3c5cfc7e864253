"""Test questions that the page shows, chosen by a rule and not by taste."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedrag.data.questions import distinct_questions
from fedrag.data.site_folder import hash_site, load_site, site_folders, site_name
from fedrag.errors import DataError
from fedrag.evaluation.records import Measured
from fedrag.runs import RunFolder
from fedrag.types import SPLITS, Passage, Question

KINDS = {
    "gained": "From wrong to right",
    "lost": "From right to wrong",
    "wrong": "Wrong before and after",
    "right": "Right before and after",
}
"""What can become of a question between the untouched and the federated models."""

SHOWN = ("gained", "lost", "wrong")
EXCERPT = 420  # characters of a passage


@dataclass(frozen=True, slots=True)
class Pair:
    """One question before and after; before: the untouched models, None where they were not measured."""

    before: Measured | None
    after: Measured


@dataclass(frozen=True, slots=True)
class Texts:
    """A site's measured questions and its passages by their ids."""

    questions: dict[str, Question]
    passages: dict[str, Passage]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A part of a passage; `match` is the first right answer in it, or empty."""

    before: str
    match: str
    after: str


def is_right(measured: Measured) -> bool | None:
    """Return whether the answer matches exactly or, without answers, a labelled passage came first; None: unknown."""
    metrics = measured.metrics
    score = metrics["exact_match"] if metrics["exact_match"] is not None else metrics["recall_at_1"]
    return None if score is None else score == 1.0


def kind_of(pair: Pair) -> str | None:
    """Name what became of a question; one that was measured once counts as unchanged; None: unknown."""
    after = is_right(pair.after)
    before = after if pair.before is None else is_right(pair.before)
    if before is None or after is None:
        return None
    return {(False, True): "gained", (True, False): "lost", (False, False): "wrong", (True, True): "right"}[
        before, after
    ]


def by_site(before: Iterable[Measured] | None, after: Iterable[Measured]) -> dict[str, dict[str, list[Pair]]]:
    """Return each site's questions by what became of them, in the order of the SHA-256 of their ids."""
    earlier = {item.key: item for item in before or ()}
    found: dict[str, dict[str, list[Pair]]] = {}
    for item in sorted(after, key=lambda item: (item.site, _order(item.question_id))):
        pair = Pair(earlier.get(item.key), item)
        kind = kind_of(pair)
        if kind is not None:
            found.setdefault(item.site, {name: [] for name in KINDS})[kind].append(pair)
    return found


def chosen(kinds: Mapping[str, Sequence[Pair]], compared: bool) -> dict[str, Pair]:
    """Return the first question of each kind that is shown; without a comparison, the first right and wrong one."""
    names = SHOWN if compared else ("right", "wrong")
    return {name: kinds[name][0] for name in names if kinds[name]}


def read_texts(run: RunFolder, site: str) -> Texts:
    """Read the questions and passages of a site that was measured.

    Raises:
        DataError: They are gone, or are no longer what the run used.
    """
    folders = {site_name(folder): folder for folder in site_folders(Path(run.config.data.sites))}
    if site not in folders:
        raise DataError(f"{run.config.data.sites}: no site {site}")
    if run.facts.get("data", {}).get(site) not in (None, hash_site(folders[site])):
        raise DataError(f"{folders[site]}: has changed since the run")
    loaded, split = load_site(folders[site]), run.config.evaluation.split
    asked = [q for name in SPLITS if split in (name, "all") for q in loaded.split(name)]
    return Texts({q.id: q for q in distinct_questions(asked)}, {p.id: p for p in loaded.passages})


def excerpt(text: str, answers: Sequence[str], width: int = EXCERPT) -> Excerpt:
    """Cut a passage to a window around the first right answer in it, or to its beginning.

    >>> excerpt("The dough rests for eighteen hours in the cold.", ["eighteen hours"], width=28)
    Excerpt(before='… for ', match='eighteen hours', after=' in …')
    """
    places = [(place, answer) for answer in answers if (place := text.casefold().find(answer.casefold())) >= 0]
    # casefold can lengthen a text (ß); then the place is not the place in the text itself
    exact = [
        (place, answer) for place, answer in places if text[place : place + len(answer)].casefold() == answer.casefold()
    ]
    place, answer = min(exact, default=(0, ""))
    start = max(0, min(place - (width - len(answer)) // 2, len(text) - width))
    end = max(place + len(answer), min(len(text), start + width))
    if start > 0:
        start = max(text.find(" ", start, place), start)
    if end < len(text):
        space = text.rfind(" ", place + len(answer), end)
        end = space if space >= 0 else end
    match = text[place : place + len(answer)]
    head, tail = text[start:place], text[place + len(answer) : end]
    return Excerpt(f"…{head}" if start > 0 else head, match, f"{tail} …" if end < len(text) else tail)


def _order(question_id: str) -> str:
    return hashlib.sha256(question_id.encode()).hexdigest()
