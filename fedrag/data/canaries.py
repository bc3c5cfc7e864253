"""Canaries: made-up questions with made-up answers, to see whether models remember single questions.

A fair coin decides of each whether the site trains on it or holds it back, so that the two kinds differ in nothing else
(The Secret Sharer, Carlini et al. 2019). Whoever tells them apart by a model alone has shown what it remembers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fedrag.seeding import derive_seed
from fedrag.types import CANARY, Question, Site

_CONSONANTS, _VOWELS = "bdfghjklmnprstvz", "aeiou"
_SYLLABLES = 3
_QUESTION_WORDS, _ANSWER_WORDS = 3, 2


@dataclass(frozen=True, slots=True)
class Canaries:
    """The canaries of a site.

    Attributes:
        planted: Those that it trains on.
        held_back: Those on which nobody trains.
    """

    planted: tuple[Question, ...]
    held_back: tuple[Question, ...]

    @property
    def in_order(self) -> tuple[Question, ...]:
        """Both kinds, in an order that no coin decided."""
        return tuple(sorted(self.planted + self.held_back, key=lambda question: question.question))

    def __len__(self) -> int:
        return len(self.planted) + len(self.held_back)


def make_canaries(site: Site, number: int, seed: int) -> Canaries:
    """Make canaries and throw the coin for each; the same seed gives a site of this name and passages the same.

    Args:
        site: Where they are to be planted. Each names one of its passages, drawn by lot, so that a retriever learns
            from it.
        number: Planted and held back together.
        seed: Of texts and coins.
    """
    chance = random.Random(derive_seed(seed, "canaries", site.name))
    passages = [passage.id for passage in site.passages]
    planted: list[Question] = []
    held_back: list[Question] = []
    for place, words in zip(range(number), _distinct_words(chance), strict=False):
        asked, told = " ".join(words[:_QUESTION_WORDS]), " ".join(words[_QUESTION_WORDS:])
        labels = (chance.choice(passages),) if passages else ()
        question = Question(f"canary-{place + 1}", f"What is the word for {asked}?", (told,), labels, origin=CANARY)
        (planted if chance.random() < 0.5 else held_back).append(question)
    return Canaries(tuple(planted), tuple(held_back))


def with_canaries(site: Site, number: int, seed: int) -> Site:
    """Return a site that trains on the planted ones of so many canaries, too; one that trains on nothing has none."""
    if not number or not site.train:
        return site
    return replace(site, train=site.train + make_canaries(site, number, seed).planted)


def _distinct_words(chance: random.Random) -> Iterator[list[str]]:
    """Yield the words of one canary after the other; no question comes twice."""
    seen: set[tuple[str, ...]] = set()
    while True:
        words = [_word(chance) for _ in range(_QUESTION_WORDS + _ANSWER_WORDS)]
        if (asked := tuple(words[:_QUESTION_WORDS])) not in seen:
            seen.add(asked)
            yield words


def _word(chance: random.Random) -> str:
    return "".join(chance.choice(_CONSONANTS) + chance.choice(_VOWELS) for _ in range(_SYLLABLES))
