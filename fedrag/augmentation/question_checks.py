"""What of a model's output can be a question, and what of it an answer."""

from __future__ import annotations

import re

from fedrag.data.words import count_words, holds_words, split_words

MOST_QUESTION_WORDS = 40
MOST_ANSWER_WORDS = 12

_MARKS = "?\uff1f\u061f\u037e"  # of Latin and most scripts, Chinese and Japanese, Arabic, Greek
_NO_WORD = re.compile(r"^\W+|\W+$")


def clean_question(text: str) -> str:
    r"""Return the question that a model wrote, up to its question mark; "" where it wrote none.

    >>> clean_question('Question: "Who guards the gate?"\nAnswer: a porter')
    'Who guards the gate?'
    >>> clean_question("The gate is guarded.")
    ''
    """
    found = re.search(rf"[^\n]*?[{_MARKS}]", text.strip())
    if not found:
        return ""
    words = re.sub(r"^(?:\w+(?: \w+)?\s?[:\uff1a])?[\s\"'*\u201c\u201e\u300c]*(?:\d+[.)]\s*)?", "", found[0]).strip()
    return words if 2 <= count_words(words) <= MOST_QUESTION_WORDS else ""


def is_about(question: str, passage: str) -> bool:
    """Return whether a question names something of its passage: a long word, a name or a number that stands in it.

    >>> is_about("Who guards the gate of Troy?", "The porter guards it.")
    True
    >>> is_about("What is the answer to this question?", "The porter guards it.")
    False
    """
    held = set(_words(passage))
    return any(
        _bare(word).casefold() in held for word in split_words(question)[1:] if _says_more(word, set(), longer_than=4)
    )


def shorten_answer(answer: str, question: str, passage: str) -> str:
    """Return the part of a model's answer that the passage holds and the question does not; "" where there is none.

    A short answer that stands in the passage is kept as it is. Small models answer in whole sentences: of these, the
    longest run of words that stands in the passage is taken, without the words of the question at its ends.

    >>> passage = "The gate was built in 1774. A porter guards it."
    >>> shorten_answer("The gate was built in 1774.", "When was the gate built?", passage)
    '1774'
    >>> shorten_answer("a porter", "Who guards it?", passage)
    'a porter'
    >>> shorten_answer("1774", "What was built in 1774?", passage)
    ''
    """
    asked = set(_words(question))
    whole = answer.strip().rstrip(".\u3002")
    if _can_be_whole(whole, asked) and holds_words(passage, whole):
        return "" if holds_words(question, whole) else whole
    best = ""
    spans = _spans(answer)
    for first in range(len(spans)):
        for last in range(first, min(first + MOST_ANSWER_WORDS, len(spans))):
            text = _bare(answer[spans[first][0] : spans[last][1]])
            if not text or not holds_words(passage, text):
                break
            ends = (answer[slice(*spans[first])], answer[slice(*spans[last])])
            if len(text) > len(best) and all(_says_more(word, asked) for word in ends):
                best = text
    return best


def _can_be_whole(answer: str, asked: set[str]) -> bool:
    """Return whether an answer is short and more than the question in other words."""
    words = _words(answer)
    return 0 < len(words) <= MOST_ANSWER_WORDS and 2 * sum(word in asked for word in words) <= len(words)


def _spans(text: str) -> list[tuple[int, int]]:
    """Return where the words of a text stand."""
    found, end = [], 0
    for word in split_words(text):
        start = text.index(word, end)
        end = start + len(word)
        found.append((start, end))
    return found


def _words(text: str) -> list[str]:
    return [word for part in split_words(text.casefold()) if (word := _bare(part))]


def _bare(text: str) -> str:
    """Strip what is no word from both ends."""
    return _NO_WORD.sub("", text)


def _says_more(word: str, asked: set[str], longer_than: int = 3) -> bool:
    """Return whether a word can begin or end an answer: a name, a number or a long word that the question lacks."""
    bare = _bare(word)
    is_telling = len(bare) > longer_than or any(char.isdigit() or char.isupper() for char in bare) or not bare.isascii()
    return bool(bare) and is_telling and bare.casefold() not in asked
