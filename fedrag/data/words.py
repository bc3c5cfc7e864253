"""Splits a text of any language into words, for lengths and scores.

Scripts that do not separate words have no words to count, so each of their characters counts as one.
"""

from __future__ import annotations

import re

UNSPACED = (
    "\u0e00-\u0e7f\u0e80-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3005\u3007\u3040-\u30ff\u31f0-\u31ff"  # Japanese marks and kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Chinese characters
)
"""Characters of scripts that do not separate words, as a range of a regular expression."""


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
