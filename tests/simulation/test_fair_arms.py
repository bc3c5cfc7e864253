"""Arms that are compared make the same passes over the same questions, each with passages of its own site."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from tiny_federation import assert_same_state, small_site, tiny_config, write_small_sites

import fedrag
from fedrag.data.questions import trained_elsewhere
from fedrag.data.writing import write_site
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import simulate
from fedrag.types import Question, Site

pytestmark = pytest.mark.usefixtures("tiny_home")

BASELINES: dict[str, Any] = {"split": "test", "generate": False, "baselines": ["local", "pooled"]}


def told(run: RunFolder, baseline: str, figure: str) -> list[float]:
    """Return a figure of each round of a baseline, summed over its one client; 0 where nobody trained."""
    records = RunFolder.open(run.path / "baselines" / baseline).rounds()
    return [sum(site[figure] for site in record["sites"].values()) for record in records]


def of_the_sites(run: RunFolder, figure: str) -> list[float]:
    return [sum(site[figure] for site in record["sites"].values()) for record in run.rounds()]


def test_pooled_prompts_hold_the_passages_that_the_sites_find(tmp_path):
    """Of the pooled passages, others would be found: a first round of the same prompts reads as many tokens."""
    root = write_small_sites(tmp_path / "sites", a=6, b=6, c=6)
    config = tiny_config(root, federation={"rounds": 1}, evaluation=BASELINES)
    run = simulate(config, out=tmp_path / "run")
    assert told(run, "pooled", "generator.tokens") == of_the_sites(run, "generator.tokens")


def test_pooled_training_draws_the_questions_that_the_sites_draw(tmp_path):
    root = write_small_sites(tmp_path / "sites", a=6, b=6)
    lsr = {"loss": "lsr", "lsr": {"max_questions": 2, "candidates": 3}}
    config = tiny_config(root, retriever=lsr, federation={"schedule": "retriever", "rounds": 1}, evaluation=BASELINES)
    run = simulate(config, out=tmp_path / "run")
    assert told(run, "pooled", "retriever.examples") == of_the_sites(run, "retriever.examples") == [4]


def test_where_some_sites_are_asked_the_baselines_train_on_what_these_have(tmp_path):
    root = write_small_sites(tmp_path / "sites", a=2, b=3, c=5)
    federation = {"schedule": "retriever", "rounds": 4, "fraction": 0.3}
    run = simulate(tiny_config(root, federation=federation, evaluation=BASELINES), out=tmp_path / "run")
    asked = [record["asked"] for record in run.rounds()]
    assert len({name for names in asked for name in names}) > 1
    sizes = {"a": 2, "b": 3, "c": 5}
    assert told(run, "pooled", "retriever.examples") == [sum(sizes[name] for name in names) for names in asked]
    for name, size in sizes.items():
        assert told(run, f"local-{name}", "retriever.examples") == [size * (name in names) for names in asked]
    training = run.results()["training"]
    assert {arm: training[arm]["retriever"]["questions"] for arm in training} == dict.fromkeys(
        ("federated", "local", "pooled"), sum(sizes[name] for names in asked for name in names)
    )


def test_a_baseline_has_the_settings_that_are_written_down_for_it(tmp_path):
    root = write_small_sites(tmp_path / "sites", a=4, b=4)
    rates = {"retriever": {"learning_rate": 2e-4, "batch_size": 2}}
    federation = {"schedule": "retriever", "rounds": 2}
    own = tiny_config(root, federation=federation, evaluation={**BASELINES, "arms": {"local": rates}})
    run = simulate(own, out=tmp_path / "own")
    only_b = tiny_config(root, data={"only": ["b"]}, federation=federation, **rates)
    expected = simulate(only_b, out=tmp_path / "b").load_result()
    assert_same_state(RunFolder.open(run.path / "baselines" / "local-b").load_result(), expected)
    told = run.results()["training"]
    found = {arm: (told[arm]["retriever"]["learning_rate"], told[arm]["retriever"]["batch_size"]) for arm in told}
    assert found == {"federated": (1e-3, 4), "local": (2e-4, 2), "pooled": (1e-3, 4)}


def site_with(name: str, train: Sequence[str], test: Sequence[str]) -> Site:
    def questions(texts: Sequence[str]) -> tuple[Question, ...]:
        return tuple(Question(text, text, ("yes",), ("p0",)) for text in texts)

    passages = small_site(name).passages[:3]
    passages = tuple(type(p)(f"p{i}", p.text, p.title) for i, p in enumerate(passages))
    return Site(name, passages, questions(train), (), questions(test))


def test_a_question_was_seen_elsewhere_if_another_site_trains_on_its_text():
    sites = [site_with("a", ["Who?"], ["What?", "WHO?", "Where?"]), site_with("b", ["what? "], [])]
    assert trained_elsewhere(sites[0], sites[0].test, sites) == {"What?"}


def test_results_tell_how_many_questions_other_sites_train_on_and_the_means_without_them(tmp_path):
    root = tmp_path / "sites"
    for site in (site_with("a", ["Who?", "Why?"], ["What?", "Where?"]), site_with("b", ["What?", "How?"], ["Who?"])):
        write_site(root / site.name, site)
    run = simulate(tiny_config(root, federation={"schedule": "retriever"}, evaluation=BASELINES), out=tmp_path / "run")
    seen = run.results()["seen_elsewhere"]
    assert seen["n_questions"] == 2
    rows = [json.loads(line) for line in (run.path / "evaluation" / "local.jsonl").read_text().splitlines()]
    (left,) = [row for row in rows if row["question_id"] == "Where?"]
    assert seen["without"]["local"] == {"n_questions": 1, **left["metrics"]}


def test_a_rule_and_losses_of_one_s_own_are_recorded(tmp_path):
    def largest(differences, weights):
        return differences[weights.index(max(weights))]

    root = write_small_sites(tmp_path / "sites", a=2, b=3)
    config = tiny_config(root, federation={"schedule": "retriever", "rounds": 1})
    run = fedrag.simulate(config, out=tmp_path / "run", rule=largest)
    assert run.facts["own"] == {"rule": f"{__name__}.test_a_rule_and_losses_of_one_s_own_are_recorded.<locals>.largest"}
    assert fedrag.resume(run.path, rule=largest).path == run.path


def test_a_pooled_site_without_validation_questions_costs_no_validation(tmp_path):
    root = write_small_sites(tmp_path / "sites", a=4, b=4)
    (root / "a" / "validation.jsonl").unlink()
    evaluation = {**BASELINES, "baselines": ["pooled"]}
    run = simulate(tiny_config(root, federation={"validate_every": 1}, evaluation=evaluation), out=tmp_path / "run")
    records = RunFolder.open(run.path / "baselines" / "pooled").rounds()
    assert all(set(record["validation"]) == {"generator", "retriever"} for record in records)
