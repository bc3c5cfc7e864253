"""Scores a predicted answer: exact match, token F1 and ROUGE-L, each the best over the right answers.

Exact match and F1 follow the evaluation scripts of SQuAD 2.0 (Rajpurkar et al. 2018) and, for other languages, of MLQA
(Lewis et al. 2020), and differ from them in two points: a number keeps its sign and its decimals, and a right answer of
which normalisation leaves nothing, such as the letter A, is compared as it stands.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from fedrag.data.words import split_words
from fedrag.evaluation.normalisation import answer_tokens, strict_tokens


def exact_match(prediction: str, answers: Sequence[str], language: str = "en") -> float:
    """Return 1.0 if the prediction equals one of the right answers once normalised, else 0.0.

    Without a right answer, only an empty prediction is right.

    Args:
        prediction: The answer to score.
        answers: The right answers.
        language: Code of their language, such as "en" or "vi".

    >>> exact_match("the Nile.", ["Nile", "River Nile"])
    1.0
    >>> exact_match("Bộ Công", ["Bộ Công An"], "vi")
    0.0
    """
    return float(any(left == right for left, right in _comparable(prediction, answers, language)))


def token_f1(prediction: str, answers: Sequence[str], language: str = "en") -> float:
    """Return the best harmonic mean of token precision and recall, in [0, 1]; see `exact_match`.

    >>> token_f1("River Nile", ["the Nile"])
    0.6666666666666666
    """
    return max(_overlap_f1(left, right) for left, right in _comparable(prediction, answers, language))


def rouge_l(prediction: str, answers: Sequence[str]) -> float:
    """Return the best F-measure of the longest common subsequence of tokens, in [0, 1] (Lin 2004).

    On English text it equals rougeL of the package rouge-score without stemming. An empty text matches nothing.

    >>> rouge_l("the cat sat", ["the cat slept", "so the black cat sat down too, no?"])
    0.6666666666666666
    """
    predicted = _rouge_tokens(prediction)
    golds = [_rouge_tokens(answer) for answer in answers]
    return max((_f1(_lcs_length(predicted, gold), len(predicted), len(gold)) for gold in golds), default=0.0)


def _comparable(prediction: str, answers: Sequence[str], language: str) -> list[tuple[list[str], list[str]]]:
    """Return the tokens of the prediction and of each right answer, normalised alike."""
    predicted = answer_tokens(prediction, language)
    pairs = []
    for answer in filter(str.strip, answers):
        gold = answer_tokens(answer, language)
        pairs.append((predicted, gold) if gold else strict_tokens(prediction, answer, language))
    return pairs or [(predicted, [])]


def _rouge_tokens(text: str) -> list[str]:
    """Split at everything that is not a letter, a mark (Indic vowels are marks) or a number."""
    lowered = unicodedata.normalize("NFKC", text).lower()
    return split_words("".join(char if unicodedata.category(char)[0] in "LMN" else " " for char in lowered))


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
