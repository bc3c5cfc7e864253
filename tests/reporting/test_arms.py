"""Tables of results: means of the arms, and federated minus each other arm."""

from __future__ import annotations

from fedrag.evaluation.records import METRICS
from fedrag.evaluation.significance import Interval, paired_bootstrap
from fedrag.reporting.arms import measured_metrics, overall_lines, site_lines

Values = dict[tuple[str, str], float | None]


def scores(metric: str, values: Values) -> dict[tuple[str, str], dict[str, float | None]]:
    return {key: dict.fromkeys(METRICS) | {metric: value} for key, value in values.items()}


UNTOUCHED = scores("f1", {("a", "1"): 0.0, ("a", "2"): 0.5, ("b", "1"): 0.25, ("b", "2"): None})
FEDERATED = scores("f1", {("a", "1"): 1.0, ("a", "2"): 0.5, ("b", "1"): 0.0, ("b", "2"): None})


def test_a_line_holds_means_and_paired_differences():
    [line] = overall_lines({"untouched": UNTOUCHED, "federated": FEDERATED})
    assert (line.label, line.n_questions) == ("F1", 3)
    assert line.means == {"untouched": 0.25, "federated": 0.5}
    assert line.differences == {"untouched": paired_bootstrap([1.0, 0.5, 0.0], [0.0, 0.5, 0.25], seed=0)}


def test_each_site_has_its_line():
    lines = site_lines({"untouched": UNTOUCHED, "federated": FEDERATED}, "f1")
    assert [(line.label, line.n_questions, line.means["federated"]) for line in lines] == [
        ("a", 2, 0.75),
        ("b", 1, 0.0),
    ]
    assert lines[1].differences == {"untouched": Interval(-0.25, -0.25, -0.25)}


def test_a_metric_that_no_question_has_is_left_out():
    assert measured_metrics({"federated": FEDERATED}) == ["f1"]
    assert site_lines({"federated": FEDERATED}, "mrr") == []


def test_arms_without_the_federated_one_have_no_differences():
    [line] = overall_lines({"untouched": UNTOUCHED})
    assert line.differences == {}
