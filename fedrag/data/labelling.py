"""Labels questions with the passages in which their answers stand."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from fedrag.data.words import UNSPACED, holds_words
from fedrag.types import Passage

_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
_END = " .。!！?？"


class AnswerFinder:
    """Finds the passages of a corpus that hold an answer as whole words.

    Where an answer stands in several passages, those are right that share most with the question, a word that few
    passages have counting more than one that many have.
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._ids = [passage.id for passage in passages]
        self._texts = [_folded(passage.text) for passage in passages]
        self._words = [frozenset(_words(passage.full_text)) for passage in passages]
        self._holding = Counter(word for words in self._words for word in words)

    def find(self, question: str, answers: Iterable[str]) -> list[str]:
        """Return the ids of the right passages; none where the answer stands nowhere, or it cannot be told where."""
        wanted = [text for text in (_folded(answer).strip(_END) for answer in answers) if text]
        places = [
            place
            for place, text in enumerate(self._texts)
            if any(answer in text and holds_words(text, answer) for answer in wanted)
        ]
        if len(places) <= 1:
            return [self._ids[place] for place in places]
        asked = frozenset(_words(question))
        shared = {place: self._weight(asked & self._words[place]) for place in places}
        most = max(shared.values())
        return [self._ids[place] for place in places if shared[place] == most > 0]

    def _weight(self, words: frozenset[str]) -> float:
        """Return the sum of the words' inverse document frequencies."""
        return math.fsum(math.log(1 + len(self._ids) / self._holding[word]) for word in words)


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _words(text: str) -> list[str]:
    return _WORD.findall(_folded(text))
