"""Assigns questions to splits by their text, the same at every site.

Several sites often have the same question. If each site split its own questions, one site would train on what
another is tested on, and a federation would look better than it is.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedrag.errors import ConfigError
from fedrag.types import SPLITS, Split

_BY_NEED: tuple[Split, ...] = ("train", "test", "validation")

Fractions = tuple[float, float, float]
"""The shares of train, validation and test, which sum to 1."""


def split_of(question: str, fractions: Fractions, seed: int) -> Split:
    """Return the split of a question: a hash of the seed and of its normalised text.

    >>> split_of("Who reads my mail?", (0.6, 0.1, 0.3), seed=0)
    'train'
    >>> split_of("who reads  my mail", (0.6, 0.1, 0.3), seed=0)
    'train'
    """
    text = f"{seed}\x1f{normalise_question(question)}"
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    position = (int.from_bytes(digest, "big") >> 11) / 2**53  # 53 bits: exact in a float, below 1
    train, validation, _ = fractions
    if position < train:
        return "train"
    # Rounded: a sum just short of 1 would leave a few questions to an empty test split.
    return "validation" if position < round(train + validation, 9) else "test"


@dataclass(frozen=True, slots=True)
class Splits:
    """The split of every question of several sites.

    Attributes:
        by_text: The split of each normalised text, the same at every site.
        lacking: Names of the sites that a wanted split leaves without a question.
    """

    by_text: dict[str, Split]
    lacking: dict[Split, list[str]]


def split_questions(texts: Mapping[str, Iterable[str]], fractions: Fractions, seed: int) -> Splits:
    """Split the questions of sites by their hash; then give each site a question of every split where that can be.

    Training comes first, then the test, then validation: a split may take the last question of one that comes after
    it. A question that moves does so at every site that has it, so the same question is on the same side everywhere.

    Args:
        texts: The questions of each site, by the site's name.
        fractions: Shares of the splits.
        seed: Seed of the hash.
    """
    by_site = {name: sorted({normalise_question(text) for text in asked}) for name, asked in texts.items()}
    by_text = {text: split_of(text, fractions, seed) for asked in by_site.values() for text in asked}
    askers: dict[str, list[str]] = defaultdict(list)
    for name, asked in by_site.items():
        for text in asked:
            askers[text].append(name)
    counts = {name: Counter(by_text[text] for text in asked) for name, asked in by_site.items()}
    lacking: dict[Split, list[str]] = {}
    wanted = [split for split in _BY_NEED if fractions[SPLITS.index(split)] > 0]
    for split in wanted:
        for name in sorted(by_site):
            if counts[name][split]:
                continue
            moved = _movable(by_site[name], split, by_text, askers, counts)
            if moved is None:
                lacking.setdefault(split, []).append(name)
                continue
            for asker in askers[moved]:
                counts[asker][by_text[moved]] -= 1
                counts[asker][split] += 1
            by_text[moved] = split
    return Splits(by_text, lacking)


def _movable(
    asked: Sequence[str],
    to: Split,
    by_text: Mapping[str, Split],
    askers: Mapping[str, Sequence[str]],
    counts: Mapping[str, Mapping[Split, int]],
) -> str | None:
    """Return the question to move: best one whose split no site misses, then one that the fewest sites share."""

    def missed(text: str) -> int:
        return sum(counts[name][by_text[text]] == 1 for name in askers[text])

    after = _BY_NEED[_BY_NEED.index(to) :]
    allowed = [text for text in asked if by_text[text] in after or not missed(text)]
    return min(allowed, key=lambda text: (missed(text), len(askers[text]), text), default=None)


def normalise_question(question: str) -> str:
    """Return a form that two spellings of the same question share.

    >>> normalise_question(" Is it  FREE  of charge?? ")
    'is it free of charge'
    """
    text = " ".join(unicodedata.normalize("NFKC", question).casefold().split())
    start, end = 0, len(text)
    while start < end and _is_edge(text[start]):
        start += 1
    while end > start and _is_edge(text[end - 1]):
        end -= 1
    return text[start:end]


def parse_split(text: str) -> Fractions:
    """Read shares such as "0.6/0.1/0.3".

    Raises:
        ConfigError: The text is not three numbers from 0 to 1 that sum to 1.
    """
    try:
        train, validation, test = (float(part) for part in text.split("/"))
    except ValueError:
        raise ConfigError(f'split "{text}": expected three shares such as 0.6/0.1/0.3') from None
    fractions = (train, validation, test)
    in_range = all(0 <= fraction <= 1 for fraction in fractions)
    if not in_range or not math.isclose(sum(fractions), 1, abs_tol=1e-9):
        raise ConfigError(f'split "{text}": the shares must lie between 0 and 1 and sum to 1')
    return fractions


def _is_edge(character: str) -> bool:
    """Return whether a character is punctuation or white space."""
    return character == " " or unicodedata.category(character).startswith("P")
