"""What of a passage stands in a prompt: all of it, or a window around the part that was found.

A window depends on the passage, the part and the room, never on the question, so that prompts on the same part of a
passage begin with the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from fedrag.retrieval.index import PassageIndex
from fedrag.types import Hit, Passage

WINDOW_STEP = 16
"""Tokens by which windows differ in size: questions of about the same length then leave the same windows."""

_LETTERS_A_TOKEN = 16  # more than in any language; text further away is not even tokenised
_REMEMBERED = 512  # passages


@dataclass(frozen=True, slots=True)
class Shown:
    """A passage, and the part of it that must be in the prompt.

    Attributes:
        text: Title and text.
        head: Length of the title and its line end, which every window repeats.
        start: First character of the part.
        end: The character after its last.
    """

    text: str
    head: int = 0
    start: int = 0
    end: int = 0


def shown_passage(passage: Passage, part: str = "") -> Shown:
    r"""Return a passage with the place of one of its chunks; of a part that is not in it, its beginning.

    >>> shown_passage(Passage("p1", "It orbits Mars.", "Phobos"), "Phobos\norbits")
    Shown(text='Phobos\nIt orbits Mars.', head=7, start=10, end=16)
    """
    text, head = passage.full_text, len(passage.full_text) - len(passage.text)
    title = text[:head]
    own = part.removeprefix(title) if title else part  # every chunk begins with the title
    start = head + max(passage.text.find(own), 0)
    return Shown(text, head, start, min(start + len(own), len(text)))


def shown_hits(hits: Sequence[Hit], passages: Mapping[str, Passage], index: PassageIndex) -> list[Shown]:
    """Return the passages that were found, best first, each with its best chunk."""
    return [shown_passage(passages[hit.passage_id], index.texts[hit.chunk]) for hit in hits]


class PassageReader:
    """Turns passages into the tokens that stand in a prompt, and remembers those it read last.

    Args:
        tokenise: Returns the token ids of a text.
        opening: What stands before a passage, such as "Passage: ".
        most: Most tokens that a prompt can hold.
        closing: What stands after a passage.
    """

    def __init__(self, tokenise: Callable[[str], list[int]], opening: str, most: int, closing: str = "\n\n") -> None:
        self._tokenise = tokenise
        self._opening = opening
        self._closing = closing
        self._reach = _LETTERS_A_TOKEN * most
        self.whole = lru_cache(_REMEMBERED)(self._whole)
        self.within = lru_cache(_REMEMBERED)(self._within)

    def _whole(self, shown: Shown) -> list[int]:
        """Return the tokens of a passage, or of what of a very long one can be in a prompt."""
        first, last = self._near(shown)
        text = shown.text[: shown.head] + shown.text[first:last]
        return self._tokenise(f"{self._opening}{text}{self._closing}")

    def _within(self, shown: Shown, limit: int) -> list[int]:
        """Return a passage in at most `limit` tokens: whole where it fits, else the window around its part."""
        whole = self.whole(shown)
        if len(whole) <= limit:
            return whole
        even = limit // WINDOW_STEP * WINDOW_STEP or limit
        opening = self._tokenise(self._opening + shown.text[: shown.head])
        if 2 * len(opening) > even:  # no room for the title
            opening = self._tokenise(self._opening)
        closing = self._tokenise(self._closing)
        first, last = self._near(shown)
        body, before, inside = map(
            self._tokenise,
            (shown.text[first:last], shown.text[first : shown.start], shown.text[shown.start : shown.end]),
        )
        around = len(opening) + len(closing)
        # Of a part that does not fit, as much as possible is shown, even where questions then leave different windows.
        room = (even if len(inside) <= even - around else limit) - around
        if room <= 0:
            return body[:limit]
        start = window_start(len(body), len(before), len(inside), room)
        return opening + body[start : start + room] + closing

    def _near(self, shown: Shown) -> tuple[int, int]:
        return max(shown.start - self._reach, shown.head), shown.end + self._reach


def window_start(n_tokens: int, before: int, inside: int, room: int) -> int:
    """Return the first token of a window around a part of a text, with as much before the part as after it.

    Args:
        n_tokens: Tokens of the text.
        before: Tokens before the part.
        inside: Tokens of the part; of one longer than the window, the beginning is shown.
        room: Tokens of the window.

    >>> window_start(100, 50, 10, 30), window_start(100, 2, 10, 30), window_start(100, 95, 5, 30)
    (40, 0, 70)
    """
    return max(min(before - max(room - inside, 0) // 2, n_tokens - room), 0)
