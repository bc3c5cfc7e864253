"""The rule that chooses the questions on the page."""

from __future__ import annotations

from hashlib import sha256

from fedrag.evaluation.records import METRICS, Measured
from fedrag.reporting.choice import Pair, by_site, chosen, is_right, kind_of, rule


def measured(question: str, site: str = "a", **metrics: float) -> Measured:
    return Measured(site, question, (), None, dict.fromkeys(METRICS) | metrics)


def em(question: str, value: float, site: str = "a") -> Measured:
    return measured(question, site, exact_match=value, recall_at_1=1 - value)


def test_right_is_an_exact_match_or_without_answers_a_labelled_passage_in_front():
    assert is_right(em("q", 1.0)) is True
    assert is_right(em("q", 0.0)) is False
    assert is_right(measured("q", recall_at_1=1.0)) is True
    assert is_right(measured("q", recall_at_1=0.0)) is False
    assert is_right(measured("q")) is None


def test_a_question_changes_or_stays():
    kinds = {(b, a): kind_of(Pair(em("q", b), em("q", a))) for b in (0.0, 1.0) for a in (0.0, 1.0)}
    assert kinds == {(0.0, 0.0): "wrong", (0.0, 1.0): "gained", (1.0, 0.0): "lost", (1.0, 1.0): "right"}
    assert (kind_of(Pair(None, em("q", 1.0))), kind_of(Pair(None, em("q", 0.0)))) == ("right", "wrong")
    assert kind_of(Pair(measured("q"), measured("q"))) is None


def test_the_first_by_the_hash_of_its_id_is_chosen_whatever_the_order_of_the_records():
    names = [f"q{i}" for i in range(20)]
    before = [em(name, 0.0) for name in names]
    after = [em(name, float(i % 2)) for i, name in enumerate(names)]
    first = {
        "gained": min(names[1::2], key=lambda name: sha256(name.encode()).hexdigest()),
        "wrong": min(names[0::2], key=lambda name: sha256(name.encode()).hexdigest()),
    }
    for records in (after, after[::-1]):
        pairs = by_site(before, records)["a"]
        assert {kind: pair.after.question_id for kind, pair in chosen(pairs, True).items()} == first
        assert {kind: len(found) for kind, found in pairs.items()} == {"gained": 10, "lost": 0, "wrong": 10, "right": 0}


def test_each_site_chooses_for_itself_and_ids_of_other_sites_are_other_questions():
    pairs = by_site([em("q", 0.0, "a"), em("q", 1.0, "b")], [em("q", 1.0, "a"), em("q", 0.0, "b")])
    assert {site: list(chosen(found, True)) for site, found in pairs.items()} == {"a": ["gained"], "b": ["lost"]}


def test_without_the_untouched_models_the_first_right_and_the_first_wrong_are_chosen():
    pairs = by_site(None, [em("q1", 1.0), em("q2", 0.0)])["a"]
    assert {kind: pair.after.question_id for kind, pair in chosen(pairs, False).items()} == {
        "right": "q1",
        "wrong": "q2",
    }


def test_the_rule_says_what_is_compared_and_what_right_means():
    assert "the first that went from right to wrong" in rule(compared=True, answers=True)
    assert "matches a right answer exactly" in rule(compared=True, answers=True)
    assert rule(compared=False, answers=False) == (
        "Chosen by a rule: of each site the first that is right and the first that is wrong, in the order of the "
        "SHA-256 of the questions' ids. Right means that a labelled passage was retrieved first."
    )
