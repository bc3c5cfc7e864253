"""Which language a reader gets: that of FEDRAG_LANG, or one that the browser asks for."""

from __future__ import annotations

import os

from fedrag.errors import ConfigError
from fedrag.languages.catalogue import ENGLISH, LANGUAGES, Words

VARIABLE = "FEDRAG_LANG"


def wanted_language() -> Words | None:
    """Return the language of FEDRAG_LANG; None where it is not set.

    Raises:
        ConfigError: It names no language of fedrag.
    """
    code = os.environ.get(VARIABLE, "")
    if code and code not in LANGUAGES:
        raise ConfigError(
            f"{VARIABLE}={code}: expected {', '.join(LANGUAGES[:-1])} or {LANGUAGES[-1]}; "
            "without it, a page speaks the language of the reader's browser"
        )
    return Words(code) if code else None


def page_languages() -> tuple[Words, ...]:
    """Return the languages of a page that is written to a file: that of FEDRAG_LANG, or all.

    Raises:
        ConfigError: FEDRAG_LANG names no language of fedrag.
    """
    wanted = wanted_language()
    return (wanted,) if wanted else tuple(map(Words, LANGUAGES))


def accepted_language(header: str) -> Words:
    """Return the language that a browser's header Accept-Language prefers (RFC 9110, 12.5.4).

    >>> accepted_language("fr, vi-VN;q=0.8, en;q=0.9").code, accepted_language("zh-TW,zh;q=0.9").code
    ('en', 'zh')
    >>> accepted_language("de"), accepted_language("vi;q=0, zh;q=high")
    (Words(code='en'), Words(code='en'))
    """
    best, found = 0.0, ENGLISH
    for entry in header.split(","):
        tag, _, weight = entry.partition(";")
        code, quality = tag.strip().lower().split("-")[0], _quality(weight)
        if code in LANGUAGES and quality > best:
            best, found = quality, Words(code)
    return found


def _quality(weight: str) -> float:
    """Return a weight between 0 and 1; 0 where it is none."""
    name, _, number = weight.partition("=")
    if not weight.strip():
        return 1.0
    try:
        return float(number) if name.strip().lower() == "q" else 0.0
    except ValueError:
        return 0.0
