"""The terms of a text of any language, by which BM25 compares it with others.

Words where spaces separate them. Scripts that do not separate words have pairs of neighbouring characters instead, as
search engines index Chinese and Japanese; Korean has them too, since its words carry their particles.
"""

from __future__ import annotations

import re
import unicodedata

from fedrag.data.words import UNSPACED

_HANGUL = "\uac00-\ud7a3"
_RUN = re.compile(rf"[{UNSPACED}{_HANGUL}]+|[^\s{UNSPACED}{_HANGUL}]+")
_IN_PAIRS = re.compile(f"[{UNSPACED}{_HANGUL}]")


class _Spaced(dict[int, int]):
    """A table for `str.translate`: letters, marks (Indic vowels are marks) and numbers stay, all else is a space."""

    def __missing__(self, code: int) -> int:
        self[code] = code if unicodedata.category(chr(code))[0] in "LMN" else ord(" ")
        return self[code]


_SPACED = _Spaced()


def split_terms(text: str) -> list[str]:
    """Return a text's terms, in order: whatever their case, their width, and the punctuation around them.

    >>> split_terms("The Eiffel-Tower (1889), naïve!")
    ['the', 'eiffel', 'tower', '1889', 'naïve']
    >>> split_terms("北京市2008年")
    ['北京', '京市', '2008', '年']
    """
    plain = unicodedata.normalize("NFKC", text).casefold().translate(_SPACED)
    if not _IN_PAIRS.search(plain):
        return plain.split()
    return [term for run in _RUN.findall(plain) for term in (_pairs(run) if _IN_PAIRS.match(run) else [run])]


def _pairs(run: str) -> list[str]:
    return [run[place : place + 2] for place in range(max(1, len(run) - 1))]
