"""Assigns questions to splits by their text, the same at every site.

Several sites often have the same question. If each site split its own questions, one site would train on what
another is tested on, and a federation would look better than it is.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata

from fedrag.errors import ConfigError
from fedrag.types import Split

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
