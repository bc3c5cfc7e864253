"""Scores a predicted answer: exact match, token F1 and ROUGE-L, each the best over the right answers.

Exact match and F1 follow the evaluation script of SQuAD 2.0 (Rajpurkar et al. 2018), after Unicode normalisation NFKC.
Chinese, Japanese and Thai do not separate words, so each of their characters is a token.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

UNSPACED = (
    "\u0e00-\u0e7f"  # Thai
    "\u3005\u3007\u3040-\u30ff\u31f0-\u31ff"  # Japanese marks and kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Chinese characters
)
TOKEN = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower the case and drop ASCII punctuation, articles and extra white space, as SQuAD does.

    >>> normalize_answer("The  Eiffel-Tower, Paris.")
    'eiffeltower paris'
    """
    lowered = unicodedata.normalize("NFKC", text).lower()
    return " ".join(ARTICLES.sub(" ", lowered.translate(PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Return 1.0 if the prediction equals one of the right answers once normalised, else 0.0.

    >>> exact_match("the Nile.", ["Nile", "River Nile"])
    1.0
    """
    return float(normalize_answer(prediction) in _normalized(answers))


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the best harmonic mean of token precision and recall, in [0, 1].

    Without a right answer, only an empty prediction is right.

    >>> token_f1("River Nile", ["the Nile"])
    0.6666666666666666
    """
    predicted = _tokens(normalize_answer(prediction))
    return max(_overlap_f1(predicted, _tokens(answer)) for answer in _normalized(answers))


def rouge_l(prediction: str, answers: Sequence[str]) -> float:
    """Return the best F-measure of the longest common subsequence of tokens, in [0, 1] (Lin 2004).

    On English text it equals rougeL of the package rouge-score without stemming. An empty text matches nothing.

    >>> rouge_l("the cat sat", ["the cat slept", "so the black cat sat down too, no?"])
    0.6666666666666666
    """
    predicted = _rouge_tokens(prediction)
    golds = [_rouge_tokens(answer) for answer in answers]
    return max((_f1(_lcs_length(predicted, gold), len(predicted), len(gold)) for gold in golds), default=0.0)


def _normalized(answers: Sequence[str]) -> list[str]:
    """Normalise the right answers, and drop those that become empty, as in SQuAD 2.0."""
    return list(filter(None, map(normalize_answer, answers))) or [""]


def _tokens(text: str) -> list[str]:
    return TOKEN.findall(text)


def _rouge_tokens(text: str) -> list[str]:
    """Split at everything that is not a letter, a mark (Indic vowels are marks) or a number."""
    lowered = unicodedata.normalize("NFKC", text).lower()
    return _tokens("".join(char if unicodedata.category(char)[0] in "LMN" else " " for char in lowered))


def _overlap_f1(predicted: list[str], gold: list[str]) -> float:
    if not predicted or not gold:
        return float(predicted == gold)
    common = (Counter(predicted) & Counter(gold)).total()
    return _f1(common, len(predicted), len(gold))


def _f1(common: int, predicted: int, gold: int) -> float:
    """Return the harmonic mean of common / predicted and common / gold."""
    if common == 0:
        return 0.0
    precision, recall = common / predicted, common / gold
    return 2 * precision * recall / (precision + recall)


def _lcs_length(left: list[str], right: list[str]) -> int:
    """Return the length of the longest common subsequence, bit-parallel (Hyyrö 2004).

    It uses one bit per token of `left`: answers of a thousand tokens take a millisecond instead of a second.
    """
    places: dict[str, int] = {}
    for place, token in enumerate(left):
        places[token] = places.get(token, 0) | 1 << place
    every = (1 << len(left)) - 1
    unmatched = every
    for token in right:
        matches = unmatched & places.get(token, 0)
        unmatched = ((unmatched + matches) | (unmatched - matches)) & every
    return len(left) - unmatched.bit_count()
