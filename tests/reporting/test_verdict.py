"""The sentence that says what a run showed."""

from __future__ import annotations

from fedrag.evaluation.significance import Interval
from fedrag.reporting.verdict import headline_metrics, outcome, verdict

CLEAR = Interval(0.312, 0.251, 0.370)
WORSE = Interval(-0.021, -0.036, -0.005)
OPEN = Interval(0.004, -0.011, 0.0199)
SAME = Interval(0.0, 0.0, 0.0)


def said(metric: str, federated: float, n: int = 352, **differences: Interval | None) -> str:
    return verdict(metric, federated, differences, n).replace("\N{NO-BREAK SPACE}", " ")


def test_a_clear_gain_and_a_clear_loss_are_said_with_their_intervals():
    assert said("exact_match", 0.389, untouched=CLEAR, local=Interval(0.04, 0.01, 0.07), pooled=WORSE) == (
        "Federation reaches 38.9 per cent exact match on 352 questions. "
        "It beats the untouched models by 31.2 points (95 % interval 25.1 to 37.0) "
        "and the local models by 4.0 points (95 % interval 1.0 to 7.0); "
        "it does worse than the pooled model by 2.1 points (95 % interval 0.5 to 3.6)."
    )


def test_an_interval_that_holds_zero_is_no_gain():
    assert said("mrr", 0.466, untouched=OPEN) == (
        "Federation reaches 46.6 per cent MRR on 352 questions. It cannot be told apart from the untouched models "
        "(+0.4 points, 95 % interval −1.1 to +2.0, which holds zero)."
    )


def test_the_same_scores_are_called_the_same():
    assert said("exact_match", 0.0, 1000, untouched=SAME, local=SAME, pooled=SAME) == (
        "Federation reaches 0.0 per cent exact match on 1,000 questions. "
        "It scores exactly the same as the untouched models, the local models and the pooled model."
    )


def test_a_loss_against_the_untouched_models_is_said_plainly():
    assert "It does worse than the untouched models by 2.1 points" in said("exact_match", 0.1, untouched=WORSE)


def test_without_another_arm_there_is_no_comparison():
    expected = (
        "Federation reaches 12.5 per cent exact match on 8 questions. "
        "Nothing else was measured, so there is nothing to compare it with."
    )
    assert said("exact_match", 0.125, 8) == said("exact_match", 0.125, 8, untouched=None) == expected


def test_few_questions_are_too_few_for_a_claim():
    caution = "So few questions tell little."
    assert said("exact_match", 1.0, 29, untouched=Interval(1.0, 1.0, 1.0)).endswith(caution)
    assert not said("exact_match", 1.0, 30, untouched=CLEAR).endswith(caution)
    assert "on 1 question." in said("exact_match", 1.0, 1, untouched=CLEAR)


def test_an_interval_that_ends_at_zero_holds_it():
    assert outcome(Interval(0.1, 0.0, 0.2)) == outcome(Interval(-0.1, -0.2, 0.0)) == "open"
    assert (outcome(CLEAR), outcome(WORSE), outcome(SAME)) == ("more", "less", "same")


def test_the_verdict_is_about_answers_and_about_retrieval_where_it_was_trained():
    both = ["exact_match", "f1", "recall_at_1", "mrr"]
    assert headline_metrics(["generator"], both) == ["exact_match"]
    assert headline_metrics(["generator", "retriever"], both) == ["exact_match", "recall_at_1"]
    assert headline_metrics(["generator"], ["recall_at_1", "mrr"]) == ["recall_at_1"]
    assert headline_metrics(["retriever"], []) == []


def test_a_difference_that_other_sites_may_not_show_is_said():
    text = verdict("exact_match", 0.4, {"local": CLEAR, "pooled": OPEN}, 100, {"local": OPEN, "pooled": OPEN})
    assert text.endswith(" Over sites, the interval of the difference to the local models holds zero.")
    assert "Over sites" not in verdict("exact_match", 0.4, {"local": CLEAR}, 100, {"local": CLEAR})
