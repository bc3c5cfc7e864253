"""Gives passages their ids, and those of an earlier import back to the ones that it had already."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedrag.data.documents.boilerplate import text_key
from fedrag.data.documents.reading_folder import READERS
from fedrag.data.documents.sections import Cut
from fedrag.data.importers.draft import slug
from fedrag.data.words import split_words
from fedrag.types import Passage

_SAME_WORDS = 0.5  # of two passages under one heading: the later is the earlier one, changed
_NEAR = 20  # how many places a changed passage may have moved below its heading
_FILE = re.compile(rf"^(.+?(?:{'|'.join(map(re.escape, READERS))}))(?:, |$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Numbered:
    """Passages with their ids.

    Attributes:
        passages: In the order of the documents.
        changed: Ids of those whose text or title was another one before.
        new: Ids that were not there before.
    """

    passages: tuple[Passage, ...]
    changed: frozenset[str] = frozenset()
    new: frozenset[str] = frozenset()


def number_passages(cuts: Sequence[Cut], before: Sequence[Passage] = (), taken: Sequence[str] = ()) -> Numbered:
    """Give each passage an id: its file's name and a number, or the id that it had before.

    A passage of the same text keeps its id, wherever it stands now. So does one of the same file and title of which
    at least half of the words are the same.

    Args:
        cuts: The passages, of distinct texts.
        before: The passages of an earlier import.
        taken: Further ids that must not be given.
    """
    earlier = {text_key(passage.text): passage for passage in before}
    same = {place: earlier[key] for place, cut in enumerate(cuts) if (key := text_key(cut.text)) in earlier}
    known = same | _changed(cuts, before, same)
    ids = {*taken, *(passage.id for passage in before)}
    numbers = _highest_numbers(ids)
    passages, changed, new = [], set(), set()
    for place, cut in enumerate(cuts):
        old = known.get(place)
        if old is None:
            prefix = slug(source_file(cut.source).rpartition(".")[0])
            numbers[prefix] += 1
            identity = f"{prefix}-{numbers[prefix]}"
            new.add(identity)
        else:
            identity = old.id
            if (old.text, old.title) != (cut.text, cut.title):
                changed.add(identity)
        passages.append(Passage(identity, cut.text, cut.title, cut.source))
    return Numbered(tuple(passages), frozenset(changed), frozenset(new))


def source_file(source: str) -> str:
    """Return the file of a source that names a document, or "".

    >>> source_file("rules/visits.pdf, page 3"), source_file("the ward's diary, page 3")
    ('rules/visits.pdf', '')
    """
    found = _FILE.match(source)
    return found[1] if found else ""


def _changed(cuts: Sequence[Cut], before: Sequence[Passage], same: Mapping[int, Passage]) -> dict[int, Passage]:
    """Return for each place the earlier passage that was changed, the most similar first."""
    kept = {passage.id for passage in same.values()}
    earlier: dict[tuple[str, str], list[Passage]] = defaultdict(list)
    for passage in before:
        if passage.id not in kept:
            earlier[source_file(passage.source), passage.title or ""].append(passage)
    later: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, cut in enumerate(cuts):
        if place not in same:
            later[source_file(cut.source), cut.title].append(place)
    pairs = []
    for heading, places in later.items():
        had = [_words(passage.text) for passage in earlier[heading]]
        for number, place in enumerate(places):
            has = _words(cuts[place].text)
            for near in range(max(number - _NEAR, 0), min(number + _NEAR + 1, len(had))):
                share = 2 * len(has & had[near]) / (len(has) + len(had[near]))
                pairs.append((share, place, earlier[heading][near]))
    found: dict[int, Passage] = {}
    for share, place, passage in sorted(pairs, key=lambda pair: -pair[0]):
        if share >= _SAME_WORDS and place not in found and passage.id not in kept:
            found[place] = passage
            kept.add(passage.id)
    return found


def _words(text: str) -> frozenset[str]:
    return frozenset(split_words(text.casefold()))


def _highest_numbers(ids: Iterable[str]) -> dict[str, int]:
    """Return for each prefix the highest number that follows it: one that was taken is not given again."""
    numbers: dict[str, int] = defaultdict(int)
    for identity in ids:
        prefix, hyphen, number = identity.rpartition("-")
        if hyphen and number.isdecimal():
            numbers[prefix] = max(numbers[prefix], int(number))
    return numbers
