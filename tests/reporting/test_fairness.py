"""What the page tells of how fairly arms were compared."""

from __future__ import annotations

import pytest

from fedrag.evaluation.records import METRICS
from fedrag.files import write_json
from fedrag.reporting.fairness import seen_text, trainings, tried_rates, without_seen
from fedrag.runs.rate_tries import RateTries
from fedrag.runs.run_folder import RunFolder


def scores(**values: float):
    return {("a", name): dict.fromkeys(METRICS) | {"f1": value} for name, value in values.items()}


def test_figures_without_the_questions_that_another_site_trains_on():
    arms = {"untouched": scores(q1=0.0, q2=0.5), "federated": scores(q1=1.0, q2=0.75)}
    seen, (line,) = without_seen(arms, {("a", "q1"), ("b", "q9")})
    assert (
        seen_text(arms, seen) == "1 of the 2 measured questions have a text that another site trains on. Without them:"
    )
    assert (line.label, line.n_questions, line.means) == ("F1", 1, {"untouched": 0.5, "federated": 0.75})
    assert (without_seen(arms, set()), seen_text(arms, set())) == ((set(), []), "")
    seen, lines = without_seen(arms, set(scores(q1=0, q2=0)))
    assert seen_text(arms, seen).endswith("trains on: none is new.")
    assert lines == []


def test_what_each_arm_trained_and_tried(tmp_path):
    run = RunFolder(tmp_path, config=None)
    assert (trainings(run), tried_rates(run)) == ([], [])
    total = {"learning_rate": 5e-4, "batch_size": 8, "steps": 12, "questions": 96}
    write_json(tmp_path / "results.json", {"training": {"local": {"retriever": total}}})
    (row,) = trainings(run)
    assert (row.arm, row.component, row.rate, row.total.steps) == ("Local", "retriever", "5e-4", 12)
    tries = RateTries(tmp_path, "local")
    tries.record(1e-3, {"retriever": 0.5})
    tries.record(5e-4, {"retriever": 0.625})
    tries.record(1e-1, {"retriever": None})
    (row,) = tried_rates(run)
    assert row.component == "retriever, MRR"
    assert row.scores == {"5e-4": "62.5", "1e-3": "50.0", "1e-1": None}
    assert row.best == "5e-4"


@pytest.mark.usefixtures("tiny_home")
def test_the_page_of_a_run_with_one_s_own_functions_names_them(whole_run: RunFolder, tmp_path):
    import shutil

    from fedrag.reporting.page import render

    shutil.copytree(whole_run.path, tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    run.record_facts({**run.facts, "own": {"rule": "mine.trimmed", "losses.answer": "mine.smooth"}})
    page = render(run)
    for term, name in (("Own aggregation rule", "mine.trimmed"), ("Own answer loss", "mine.smooth")):
        assert f"<dt>{term}</dt><dd>{name}</dd>" in page
