"""What the log of the rounds holds: time, bytes, curves, and which replies were left out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedrag.languages.catalogue import ENGLISH, Words
from fedrag.text import printable

_ERROR_ID = re.compile(r"; error [0-9a-f]{8} in the site's log")

Records = Sequence[dict[str, Any]]
"""Lines of rounds.jsonl."""

Points = list[tuple[int, float]]
"""Values by round."""


@dataclass(slots=True)
class SiteTotals:
    """What one site did in all rounds.

    Attributes:
        asked: Rounds in which it was asked to train.
        rounds: Rounds in which its reply was used.
        examples: Most questions that one component learned from in a round.
        seconds: Time it took to train.
        received: Bytes of the messages that asked it to train.
        sent: Bytes of its replies that were used.
    """

    asked: int = 0
    rounds: int = 0
    examples: int = 0
    seconds: float = 0.0
    received: int = 0
    sent: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Replies of a site that were left out for one reason.

    Attributes:
        site: Its name.
        reason: Why, in the words of the last time.
        rounds: The rounds.
    """

    site: str
    reason: str
    rounds: tuple[int, ...]


def site_totals(records: Records) -> dict[str, SiteTotals]:
    """Return what each site that was asked did, by name."""
    totals: dict[str, SiteTotals] = defaultdict(SiteTotals)
    for record in records:
        for name in record["asked"]:
            totals[name].asked += 1
            totals[name].received += record["bytes_to_each_site"]
        for name, told in record["sites"].items():
            site = totals[name]
            site.rounds += 1
            site.examples = max([site.examples, *(int(v) for key, v in told.items() if key.endswith(".examples"))])
            site.seconds += told.get("seconds", 0.0)
            site.sent += told["bytes"]
    return dict(sorted(totals.items()))


def joint_losses(records: Records, component: str) -> Points:
    """Return the mean loss over the sites by round, of rounds whose secure sum hid that of each."""
    key = f"{component}.loss"
    return [(record["round"], told[key]) for record in records if key in (told := record.get("together", {}))]


def site_losses(records: Records, component: str) -> dict[str, Points]:
    """Return each site's mean loss by round."""
    curves: dict[str, Points] = defaultdict(list)
    for record in records:
        for name, told in record["sites"].items():
            if f"{component}.loss" in told:
                curves[name].append((record["round"], told[f"{component}.loss"]))
    return dict(curves)


def mean_curve(curves: Mapping[str, Points]) -> Points:
    """Return the mean over the sites by round.

    >>> mean_curve({"a": [(1, 2.0), (2, 1.0)], "b": [(1, 4.0)]})
    [(1, 3.0), (2, 1.0)]
    """
    values: dict[int, list[float]] = defaultdict(list)
    for points in curves.values():
        for number, value in points:
            values[number].append(value)
    return [(number, sum(found) / len(found)) for number, found in sorted(values.items())]


def curve(records: Records, key: str, component: str) -> Points:
    """Return what the server logged for a component by round, where it did."""
    return [(r["round"], r[key][component]) for r in records if component in r.get(key, {})]


def temperatures(records: Records, words: Words = ENGLISH) -> list[str]:
    """Return, in words, the scale and temperature with which the retriever's losses compared, where sites told them.

    >>> temperatures([{"sites": {"a": {"retriever.scale": 20.0}, "b": {"retriever.scale": 20.0}}}])
    ['contrastive scale 20']
    """
    found = []
    for name in ("scale", "tau_r"):
        key = f"retriever.{name}"
        told = [numbers for record in records for numbers in (*record["sites"].values(), record.get("together", {}))]
        used = {numbers[key] for numbers in told if key in numbers}
        if used:
            values = words.unfilled("fact.or").join(words.number(f"{value:g}") for value in sorted(used))
            found.append(words(f"fact.{name}", values=values))
    return found


def spent_epsilon(records: Records, words: Words = ENGLISH) -> list[str]:
    """Return, in words, what each site told last of the epsilon that the run has spent there.

    >>> spent_epsilon([{"sites": {"a": {"privacy.epsilon": 3.5}}}, {"sites": {"a": {"privacy.epsilon": 4.96}}}])
    ['a 4.96']
    """
    last: dict[str, float] = {}
    for record in records:
        for name, told in record["sites"].items():
            if "privacy.epsilon" in told:
                last[name] = told["privacy.epsilon"]
    return epsilon_text(last, words)


def epsilon_text(spent: Mapping[str, float], words: Words = ENGLISH) -> list[str]:
    """Return each site's name with its epsilon."""
    return [f"{printable(name)} {words.number(f'{epsilon:.2f}')}" for name, epsilon in sorted(spent.items())]


def failures(records: Records) -> list[Failure]:
    """Return which replies were left out, by site and reason, whatever the ids of their errors."""
    rounds: dict[tuple[str, str], list[int]] = defaultdict(list)
    last: dict[tuple[str, str], str] = {}
    for record in records:
        for site, reason in record["left_out"].items():
            key = site, _ERROR_ID.sub("", reason)
            rounds[key].append(record["round"])
            last[key] = reason
    return [Failure(key[0], last[key], tuple(numbers)) for key, numbers in sorted(rounds.items())]


def cut_weights(records: Records, words: Words = ENGLISH) -> list[str]:
    """Return, in words, which sites counted for less than they claimed, with the figures of the last time."""
    rounds: dict[tuple[str, str], list[int]] = defaultdict(list)
    last: dict[tuple[str, str], tuple[int, int]] = {}
    for record in records:
        for site, cut in record.get("weights_cut", {}).items():  # rounds of 0.1 have none
            for component, weight in cut.items():
                rounds[site, component].append(record["round"])
                last[site, component] = weight, record["sites"][site][f"{component}.examples"]
    return [
        words(
            "left_out.cut",
            site=site,
            component=words.component(component),
            counted=last[site, component][0],
            claimed=last[site, component][1],
            rounds=_in_rounds(numbers, words),
        )
        for (site, component), numbers in sorted(rounds.items())
    ]


def late(records: Records, words: Words = ENGLISH) -> list[str]:
    """Return, in words, which sites rounds closed without, and how long these had worked by then.

    >>> record = {"round": 2, "asked": ["a", "b"], "late": {"b": 75.2}}
    >>> late([{"round": 1, "asked": ["b"]}, record])
    ['b: round 2, of 2 that asked it; it had worked for 75 s']
    """
    rounds: dict[str, list[int]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for name, worked in record.get("late", {}).items():
            rounds[name].append(record["round"])
            seconds[name].append(worked)
    return [
        words(
            "left_out.late",
            site=printable(name),
            rounds=_in_rounds(numbers, words),
            asked=sum(name in record["asked"] for record in records),
            seconds=_range(seconds[name], words),
        )
        for name, numbers in sorted(rounds.items())
    ]


def _range(values: Sequence[float], words: Words) -> str:
    """Return numbers as one, or as the least and the most of them.

    >>> _range([12.0, 75.4], ENGLISH), _range([3.2], ENGLISH)
    ('12 to 75', '3')
    """
    least, most = (words.whole(round(value)) for value in (min(values), max(values)))
    return least if least == most else words("report.range", low=least, high=most)


def left_out(records: Records, words: Words = ENGLISH) -> list[str]:
    """Return, in words, which replies were not used and why; the ids of errors, new each time, are left off.

    Why is told in the words of the error, which are English.
    """
    return [
        words(
            "left_out.reply",
            site=printable(failure.site),
            reason=printable(_ERROR_ID.sub("", failure.reason)),
            rounds=_in_rounds(failure.rounds, words),
        )
        for failure in failures(records)
    ]


def _in_rounds(numbers: Sequence[int], words: Words) -> str:
    """Return rounds in words.

    >>> _in_rounds([3], ENGLISH), _in_rounds([1, 2], ENGLISH)
    ('round 3', 'rounds 1, 2')
    """
    return words("left_out.rounds", n=len(numbers), numbers=words.listed([str(number) for number in numbers]))
