"""Parts of passages around what answers a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A part of a passage; `match` is the first right answer in it, or empty."""

    before: str
    match: str
    after: str


def excerpt(text: str, answers: Sequence[str], width: int) -> Excerpt:
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
