import random
import re
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from fedrag.evaluation.answers import exact_match, rouge_l, token_f1
from fedrag.evaluation.normalisation import answer_tokens

WORDS = [
    "the",
    "a",
    "an",
    "An",
    "cat",
    "Cat",
    "sat",
    "on",
    "mat.",
    "mat",
    "U.S.",
    "don't",
    "1,000",
    "--",
    "co-op",
]
phrases = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join) | st.text(string.printable, max_size=20)


def is_ordinary(text):
    """Whether no number has a sign or a decimal mark, which SQuAD drops, and more than articles is left."""
    return bool(not text.strip() or squad_normalize(text)) and not re.search(r"[-.,]\d", text.replace("1,000", ""))


ordinary = phrases.filter(is_ordinary)
answer_lists = st.lists(ordinary, max_size=4)


def squad_normalize(text):
    """The SQuAD definition, step by step."""
    text = text.lower()
    text = "".join(char for char in text if char not in set(string.punctuation))
    text = re.sub(r"\b(a|an|the)\b", " ", text)
    return " ".join(text.split())


def squad_f1(gold, prediction):
    gold_tokens, predicted_tokens = squad_normalize(gold).split(), squad_normalize(prediction).split()
    if not gold_tokens or not predicted_tokens:
        return float(gold_tokens == predicted_tokens)
    same = sum((Counter(gold_tokens) & Counter(predicted_tokens)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(predicted_tokens), same / len(gold_tokens)
    return 2 * precision * recall / (precision + recall)


def squad_golds(answers):
    return [answer for answer in answers if squad_normalize(answer)] or [""]


@given(ordinary, answer_lists)
def test_exact_match_and_f1_are_those_of_squad(prediction, answers):
    golds = squad_golds(answers)
    assert exact_match(prediction, answers) == max(squad_normalize(prediction) == squad_normalize(g) for g in golds)
    assert token_f1(prediction, answers) == max(squad_f1(gold, prediction) for gold in golds)


@given(phrases, st.lists(phrases, min_size=1, max_size=4))
def test_rouge_l_is_that_of_rouge_score(prediction, answers):
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    expected = max(scorer.score(answer, prediction)["rougeL"].fmeasure for answer in answers)
    assert rouge_l(prediction, answers) == pytest.approx(expected, abs=1e-12)


def test_rouge_l_of_long_answers_is_that_of_rouge_score():
    words = random.Random(0)
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    for length in (63, 64, 65, 300):
        left, right = (" ".join(words.choices("abcdefgh", k=length)) for _ in range(2))
        assert rouge_l(left, [right]) == pytest.approx(scorer.score(right, left)["rougeL"].fmeasure)


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The  Eiffel Tower!", "eiffel tower"),
        ("an apple a day", "apple day"),
        ("theatre", "theatre"),
        ("U.S.", "us"),
        ("\tnew\nline ", "new line"),
        ("\uff21\uff22\uff23\uff01\u3000\uff11\uff12", "abc 12"),  # full-width letters, mark, space, digits
        ("\ufb01ne", "fine"),  # a ligature
        ("the", ""),
    ],
)
def test_normalisation(text, normalized):
    assert " ".join(answer_tokens(text)) == normalized


def test_best_of_the_right_answers_counts():
    assert exact_match("Nile", ["Amazon", "the Nile"]) == 1.0
    assert exact_match("Nile", ["Amazon", "River Nile"]) == 0.0
    assert token_f1("Nile", ["Amazon", "River Nile"]) == pytest.approx(2 / 3)
    assert rouge_l("Nile", ["Amazon", "River Nile"]) == pytest.approx(2 / 3)


def test_repeated_tokens_count_as_often_as_they_match():
    assert token_f1("cat cat cat", ["cat dog"]) == pytest.approx(2 * (1 / 3) * (1 / 2) / (5 / 6))


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("", [], 1.0),
        ("", [""], 1.0),
        ("the", [""], 1.0),
        ("cat", [], 0.0),
        ("", ["cat"], 0.0),
        ("", ["the", "cat"], 0.0),
        ("", ["the"], 0.0),
    ],
)
def test_empty_prediction_is_right_only_where_there_is_no_answer(prediction, answers, score):
    assert exact_match(prediction, answers) == score
    assert token_f1(prediction, answers) == score


def test_rouge_l_of_nothing_is_zero():
    assert rouge_l("", [""]) == rouge_l("cat", []) == rouge_l("", ["cat"]) == rouge_l("?", ["?"]) == 0.0


@pytest.mark.parametrize(
    ("prediction", "answer", "f1"),
    [
        ("東京都", "東京", 2 * (2 / 3) / (5 / 3)),  # 2 of 3 characters, all of 2
        ("ひらがな", "カタカナ", 0.0),
        ("กรุงเทพ", "กรุง", 2 * (4 / 7) / (11 / 7)),
        ("2010年", "2010 年", 1.0),  # a number stays one token
        ("서울 시", "서울", 2 / 3),  # Korean separates words
        ("ﾄｳｷｮｳ", "トウキョウ", 1.0),  # half-width forms
    ],
)
def test_characters_are_tokens_where_words_are_not_separated(prediction, answer, f1):
    assert token_f1(prediction, [answer]) == pytest.approx(f1)
    assert rouge_l(prediction, [answer]) == pytest.approx(f1)


def test_rouge_l_knows_letters_beyond_ascii_and_typographic_marks():
    assert rouge_l("“café”", ["Café."]) == 1.0
    assert rouge_l("cafe", ["café"]) == 0.0
    assert rouge_l("हिन्दी भाषा", ["हिन्दी"]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("prediction", "answer", "language", "same"),
    [
        ("Bộ Công", "Bộ Công An", "vi", 0.0),  # "an" is an article in English alone
        ("an toàn", "toàn", "vi", 0.0),
        ("bộ công an.", "Bộ Công An", "vi", 1.0),
        ("những con mèo", "con mèo", "vi", 1.0),
        ("der Turm", "Turm", "de", 1.0),
        ("der Turm", "Turm", "en", 0.0),
        ("la torre", "torre", "es-MX", 1.0),
        ("l'hôpital", "hôpital", "fr", 1.0),
        ("en katt", "katt", "sv", 1.0),
        ("et hus", "hus", "da", 1.0),
        ("a ház", "ház", "hu", 1.0),
        ("المكتبة", "مكتبة", "ar", 1.0),
        ("北京。", "北京", "zh", 1.0),
        ("「東京」", "東京", "ja", 1.0),
        ("दिल्ली।", "दिल्ली", "hi", 1.0),
        ("308 分", "308分", "zh", 1.0),
        ("３０８分", "308分", "zh", 1.0),
        ("“Mona Lisa”", "Mona Lisa", "en", 1.0),
        ("the word", "the word", "xx", 1.0),
    ],
)
def test_punctuation_goes_by_unicode_category_and_articles_by_language(prediction, answer, language, same):
    assert exact_match(prediction, [answer], language) == same


@pytest.mark.parametrize(
    ("prediction", "answer", "language", "same"),
    [
        ("5", "-5", "en", 0.0),
        ("\u22125 °C", "-5 °C", "en", 1.0),  # the sign of a formula
        ("0.5 mg", "5 mg", "en", 0.0),
        (".5 mg", "0.5 mg", "en", 1.0),
        ("1.5", "15", "en", 0.0),
        ("1,000", "1000", "en", 1.0),
        ("1,000.5", "1000.5", "en", 1.0),
        ("1.000", "1000", "de", 1.0),
        ("0,5", "0.5", "de", 1.0),
        ("1,5", "15", "vi", 0.0),
        ("约-5度", "约5度", "zh", 0.0),
        ("2010-2015", "2010\u20132015", "en", 1.0),  # a range, no sign
        ("COVID-19", "covid19", "en", 1.0),
        ("5.", "5", "en", 1.0),
        ("(-5)", "-5", "en", 1.0),
        ("-५", "५", "hi", 0.0),  # digits of every script
        ("५.०", "५०", "hi", 0.0),
        ("१,००,०००", "१०००००", "hi", 1.0),
        ("-٥", "٥", "ar", 0.0),
        ("٠٫٥", "٥", "ar", 0.0),
        ("١٬٠٠٠", "١٠٠٠", "ar", 1.0),
    ],
)
def test_numbers_keep_their_sign_and_their_decimals(prediction, answer, language, same):
    assert exact_match(prediction, [answer], language) == same


@pytest.mark.parametrize(
    ("prediction", "answer", "same"),
    [("", "A", 0.0), ("a.", "A", 1.0), ("B", "A", 0.0), ("?", "?", 1.0), ("!", "?", 0.0), ("the", "The", 1.0)],
)
def test_a_right_answer_of_which_nothing_is_left_is_compared_as_it_stands(prediction, answer, same):
    assert exact_match(prediction, [answer]) == same
    assert token_f1(prediction, [answer]) == same
