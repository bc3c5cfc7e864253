"""Normalises answers before they are compared: case, punctuation, articles and numbers, by language.

Punctuation and articles are those of MLQA's evaluation script (Lewis et al. 2020), after Unicode normalisation NFKC;
articles of further languages are added. Scripts that do not separate words have a token for each character.
"""

from __future__ import annotations

import re
import string
import unicodedata

from fedrag.data.words import UNSPACED, split_words

ARTICLES = {
    "en": r"\b(?:a|an|the)\b",
    "ar": r"\bال",  # written together with its word; MLQA's script drops these letters inside of words too
    "ca": r"\b(?:el|la|els|les|un|una|uns|unes)\b",
    "da": r"\b(?:en|et)\b",
    "de": r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "es": r"\b(?:un|una|unos|unas|el|la|los|las)\b",
    "fr": r"\b(?:le|la|les|un|une|des)\b",
    "hu": r"\b(?:az?|egy)\b",
    "it": r"\b(?:il|lo|la|i|gli|le|un|uno|una)\b",
    "nb": r"\b(?:en|ei|et)\b",
    "nl": r"\b(?:de|het|een)\b",
    "pt": r"\b(?:o|a|os|as|um|uma|uns|umas)\b",
    "sv": r"\b(?:en|ett)\b",
    "vi": r"\b(?:của|là|cái|chiếc|những)\b",
}
"""Articles by language; a language that is not here loses none."""

_ELISIONS = {"fr": r"\bl['’]", "it": r"\b(?:l|un)['’]"}
_DECIMAL_COMMA = frozenset(
    ("bg", "ca", "cs", "da", "de", "el", "es", "et", "fi", "fr", "hr", "hu", "id", "it", "lt", "lv", "nb", "nl", "no")
    + ("pl", "pt", "ro", "ru", "sk", "sl", "sv", "tr", "uk", "vi")
)
_SIGN, _POINT = "\ue000", "\ue001"  # stand for what a number keeps while punctuation is dropped
_BEFORE = rf"(?<![^\W{UNSPACED}])"  # no letter or digit stands before, unless its script writes without spaces
_NUMBER = re.compile(rf"(?P<sign>{_BEFORE}[-\u2212\u2013])?(?P<body>\d+(?:[.,]\d+)*|{_BEFORE}[.,]\d+)")
_ARABIC_DECIMAL, _ARABIC_THOUSANDS = "\u066b", "\u066c"


def answer_tokens(text: str, language: str = "en") -> list[str]:
    """Return the tokens of a normalised answer.

    >>> answer_tokens("The  Eiffel-Tower, Paris.")
    ['eiffeltower', 'paris']
    >>> answer_tokens("《北京》 -5.0")
    ['北', '京', '-5.0']
    """
    code = language.lower().split("-")[0]
    plain = _without_punctuation(text, code)
    return split_words(re.sub(ARTICLES[code], " ", plain) if code in ARTICLES else plain)


def strict_tokens(prediction: str, answer: str, language: str) -> tuple[list[str], list[str]]:
    """Return the tokens of both texts where normalisation leaves nothing of the answer: articles stay.

    Where nothing is left even so, punctuation stays too.

    >>> strict_tokens("a.", "A", "en")
    (['a'], ['a'])
    """
    code = language.lower().split("-")[0]
    predicted, gold = (split_words(_without_punctuation(text, code)) for text in (prediction, answer))
    if gold:
        return predicted, gold
    return _lowered(prediction).split(), _lowered(answer).split()


def _without_punctuation(text: str, language: str) -> str:
    lowered = _lowered(text)
    if language in _ELISIONS:
        lowered = re.sub(_ELISIONS[language], " ", lowered)
    decimal = "," if language in _DECIMAL_COMMA else "."
    lowered = lowered.replace(_ARABIC_DECIMAL, decimal).replace(_ARABIC_THOUSANDS, "")
    marked = _NUMBER.sub(lambda found: _plain_number(found, decimal), lowered)
    kept = "".join(char for char in marked if not _is_punctuation(char))
    return kept.replace(_SIGN, "-").replace(_POINT, ".")


def _plain_number(found: re.Match[str], decimal: str) -> str:
    """Spell a number without thousands separators, with marks for its sign and its decimal point."""
    body = found["body"]
    thousands = "," if decimal == "." else "."
    grouped = rf"(?!0)\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+(?:{re.escape(decimal)}\d+)?"
    if body.count(thousands) > 1 or re.fullmatch(grouped, body):
        body = body.replace(thousands, "")
    if body[0] in ".,":
        body = f"0{body}"
    return (_SIGN if found["sign"] else "") + body.replace(",", _POINT).replace(".", _POINT)


def _lowered(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower()


def _is_punctuation(char: str) -> bool:
    return char in string.punctuation or unicodedata.category(char).startswith("P")
