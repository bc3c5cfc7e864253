"""Splits a text of any language into words, for lengths and scores.

Scripts that do not separate words have no words to count, so each of their characters counts as one.
"""

from __future__ import annotations

import re
import unicodedata

UNSPACED = (
    "\u0e00-\u0e7f\u0e80-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3005\u3007\u3040-\u30ff\u31f0-\u31ff"  # Japanese marks and kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Chinese characters
)
"""Characters of scripts that do not separate words, as a range of a regular expression."""


_IN_WORD = re.compile(rf"[^\W{UNSPACED}]|[\u0300-\u036f\u0900-\u0dff]")  # letters, digits and the marks on them
_WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")


def split_words(text: str) -> list[str]:
    """Split at white space, and around each character of a script that does not separate words.

    >>> split_words("Room 308: 三零八室")
    ['Room', '308:', '三', '零', '八', '室']
    """
    return _WORD.findall(text)


def count_words(text: str) -> int:
    """Return the number of words, or of characters where words are not separated."""
    return sum(1 for _ in _WORD.finditer(text))


def word_ends(text: str) -> list[int]:
    """Return where each word ends, as the position of the character after it.

    >>> word_ends("Room 三零")
    [4, 6, 7]
    """
    return [match.end() for match in _WORD.finditer(text)]


def holds_words(text: str, answer: str) -> bool:
    """Return whether a text holds an answer as whole words, whatever the case and the white space.

    In scripts that do not separate words, any place counts.

    >>> holds_words("It is well known.", "no"), holds_words("No, it is not.", "no"), holds_words("在北京市。", "北京")
    (False, True, True)
    """
    folded, wanted = (" ".join(unicodedata.normalize("NFKC", part).casefold().split()) for part in (text, answer))
    if not wanted:
        return False
    place = folded.find(wanted)
    while place >= 0:
        end = place + len(wanted)
        if not _joined(folded[place - 1 : place], wanted[0]) and not _joined(wanted[-1], folded[end : end + 1]):
            return True
        place = folded.find(wanted, place + 1)
    return False


def _joined(left: str, right: str) -> bool:
    """Return whether two neighbouring characters belong to one word."""
    return all(bool(_IN_WORD.fullmatch(char)) for char in (left, right))
