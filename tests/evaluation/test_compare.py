"""Comparing two runs question by question."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedrag.config.scenario import Config
from fedrag.errors import RunError
from fedrag.evaluation.compare import compare_runs
from fedrag.evaluation.records import METRICS, Measured, measured_lines
from fedrag.evaluation.significance import paired_bootstrap
from fedrag.files import write_text
from fedrag.runs.run_folder import RunFolder

CONFIG = Config.from_dict({"name": "c", "data": {"sites": "x"}})


def run_with(path: Path, values: dict[tuple[str, str], dict[str, float | None]] | None) -> Path:
    run = RunFolder.create(CONFIG, path)
    if values is not None:
        lines = [
            Measured(site, question, (), None, dict.fromkeys(METRICS) | metrics)
            for (site, question), metrics in values.items()
        ]
        write_text(run.path / "evaluation" / "federated.jsonl", measured_lines(lines))
    return path


def test_the_difference_is_second_minus_first_over_common_questions_that_both_measured(tmp_path: Path):
    first = {("a", str(i)): {"f1": 0.1 * (i % 3), "mrr": 0.5} for i in range(30)}
    second = {("a", str(i)): {"f1": 0.1 * (i % 3) + 0.2, "mrr": None} for i in range(5, 40)}
    one, two = run_with(tmp_path / "one", first), run_with(tmp_path / "two", second)
    (other,), common = compare_runs(one, two)
    rows = other.rows
    assert common == 25
    (row,) = rows
    keys = sorted(("a", str(i)) for i in range(5, 30))
    a, b = [first[key]["f1"] for key in keys], [second[key]["f1"] for key in keys]
    assert row.metric == "f1"
    assert row.first == pytest.approx(sum(a) / 25)
    assert row.second == pytest.approx(sum(b) / 25)
    assert row.difference == paired_bootstrap(b, a, seed=0)
    assert row.difference.mean_difference == pytest.approx(0.2)
    assert row.by_site is None  # of one site
    assert row.difference.low > 0
    (other,), _ = compare_runs(two, one)
    (back,) = other.rows
    assert back.difference.mean_difference == pytest.approx(-0.2)


def test_where_there_are_several_sites_an_interval_draws_them_whole(tmp_path: Path):
    keys = [(site, str(i)) for site in "abc" for i in range(4)]
    one = run_with(tmp_path / "one", {key: {"f1": 0.25} for key in keys})
    two = run_with(tmp_path / "two", {key: {"f1": {"a": 0.5, "b": 0.25, "c": 1.0}[key[0]]} for key in keys})
    (other,), _ = compare_runs(one, two)
    (row,) = other.rows
    assert row.by_site == paired_bootstrap(
        [0.5] * 4 + [0.25] * 4 + [1.0] * 4, [0.25] * 12, groups=[site for site, _ in keys], seed=0
    )
    assert row.by_site.low == 0.0 < row.difference.low


def test_the_same_id_at_another_site_is_another_question(tmp_path: Path):
    one = run_with(tmp_path / "one", {("a", "1"): {"f1": 1.0}, ("b", "1"): {"f1": 0.0}})
    two = run_with(tmp_path / "two", {("b", "1"): {"f1": 0.5}, ("c", "1"): {"f1": 1.0}})
    (other,), common = compare_runs(one, two)
    rows = other.rows
    assert common == 1
    assert (rows[0].first, rows[0].second) == (0.0, 0.5)


def test_runs_without_a_common_question_cannot_be_compared(tmp_path: Path):
    one = run_with(tmp_path / "one", {("a", "1"): {"f1": 1.0}})
    two = run_with(tmp_path / "two", {("a", "2"): {"f1": 1.0}})
    with pytest.raises(RunError, match="measured no question in common"):
        compare_runs(one, two)


def test_a_run_that_measured_nothing_is_named(tmp_path: Path):
    one = run_with(tmp_path / "one", {("a", "1"): {"f1": 1.0}})
    two = run_with(tmp_path / "two", None)
    with pytest.raises(RunError, match=r"two: measured nothing"):
        compare_runs(one, two)
    with pytest.raises(RunError, match="is no run folder"):
        compare_runs(tmp_path / "three", one)


def test_several_runs_are_compared_with_the_first_over_what_all_measured(tmp_path: Path):
    runs = [
        run_with(tmp_path / name, {("a", str(i)): {"f1": mean} for i in range(start, 10)})
        for name, start, mean in (("one", 0, 0.25), ("two", 2, 0.5), ("three", 4, 1.0))
    ]
    found, common = compare_runs(*runs)
    assert common == 6
    assert [(row.first, row.second, row.difference.mean_difference) for one in found for row in one.rows] == [
        (0.25, 0.5, 0.25),
        (0.25, 1.0, 0.75),
    ]


def test_what_sites_made_at_home_is_compared_too(tmp_path: Path):
    one = run_with(tmp_path / "one", {("a", "1"): {"f1": 0.0}, ("b", "1"): {"f1": 0.5}})
    two = run_with(tmp_path / "two", {("a", "1"): {"f1": 0.5}, ("b", "1"): {"f1": 0.5}})
    (two / "evaluation" / "federated.jsonl").rename(two / "evaluation" / "personalised.jsonl")
    run_with(tmp_path / "again", {("a", "1"): {"f1": 0.25}, ("b", "1"): {"f1": 0.5}})
    (tmp_path / "again" / "evaluation" / "federated.jsonl").rename(two / "evaluation" / "federated.jsonl")
    found, common = compare_runs(one, two)
    assert common == 2
    told = [(one.run, one.arm, one.rows[0].first, one.rows[0].second) for one in found]
    assert told == [(two, "federated", 0.25, 0.375), (two, "personalised", 0.25, 0.5)]
