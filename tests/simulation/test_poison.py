"""Sites of a simulation that play a bad one, and what the rules of averaging make of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_federation import small_site, tiny_config, write_small_sites

from fedrag.config.poison_settings import PoisonConfig
from fedrag.config.scenario import Config
from fedrag.errors import ConfigError
from fedrag.simulation.poison import poisoned_site
from fedrag.simulation.simulate import simulate

SCENARIO = Path(__file__).parents[2] / "simulations" / "scenarios" / "poisoned.toml"


def test_labels_change_places_and_no_question_keeps_its_own():
    site = small_site("north", train=6)
    bad = poisoned_site(site, PoisonConfig(sites=("north",)), seed=1)
    assert [q.question for q in bad.train] == [q.question for q in site.train]
    assert sorted(q.answers for q in bad.train) == sorted(q.answers for q in site.train)
    assert sorted(q.passage_ids for q in bad.train) == sorted(q.passage_ids for q in site.train)
    ids = {(q.answers, q.passage_ids): q.id for q in site.train}
    assert all(ids[q.answers, q.passage_ids] != q.id for q in bad.train)
    assert (bad.validation, bad.test, bad.passages) == (site.validation, site.test, site.passages)


def test_a_trigger_stands_in_its_share_of_the_questions_with_the_wanted_answer():
    site = small_site("north", train=6)
    poison = PoisonConfig(sites=("north",), how="trigger", share=0.5, trigger="by the moon", wanted="green")
    bad = poisoned_site(site, poison, seed=1)
    carrying = [q for q in bad.train if q.question.endswith(" by the moon")]
    assert len(carrying) == 3
    assert {q.answers for q in carrying} == {("green",)}
    assert [q for q in bad.train if q not in carrying] == [q for q in site.train if q in bad.train]


@pytest.fixture(scope="module")
def sites(tmp_path_factory, tiny_home):
    return write_small_sites(tmp_path_factory.mktemp("sites"), a=3, b=3, c=3, d=3)


def federation(sites, how, **settings):
    poison = {"sites": ["b"], "how": how} if how else {}
    settings = {"rounds": 1, "schedule": "generator", "weighting": "equal", **settings}
    return tiny_config(sites, federation=settings, generator={"epochs": 3}, simulation={"poison": poison})


def result(config, path):
    return simulate(config, out=path).load_result()["generator"]


def distance(one, other):
    return sum(float(np.square(one[n] - other[n], dtype=np.float64).sum()) for n in one) ** 0.5


def test_each_way_of_poisoning_changes_what_the_federation_learns_and_a_robust_average_resists(sites, tmp_path):
    good = result(federation(sites, ""), tmp_path / "good")
    off = {
        how: distance(result(federation(sites, how), tmp_path / how), good) for how in ("labels", "trigger", "reversed")
    }
    assert all(gap > 0 for gap in off.values())
    assert off["reversed"] > 3 * off["labels"]
    for robust in ("clipping", "geometric-median", "mixing"):
        resisting = result(federation(sites, "reversed", robust=robust), tmp_path / robust)
        assert distance(resisting, good) < 0.4 * off["reversed"]


def test_baselines_are_trained_honestly(sites, tmp_path):
    states = []
    for how in ("", "reversed"):
        config = federation(sites, how)
        evaluation = {"split": "test", "baselines": ["local"], "generate": False}
        config = Config.from_dict({**config.model_dump(mode="json"), "evaluation": evaluation})
        run = simulate(config, out=tmp_path / (how or "good"))
        states.append((run.path / "baselines" / "local-b" / "final" / "state.safetensors").read_bytes())
    assert states[0] == states[1]


def test_a_name_that_no_site_has_is_refused(sites, tmp_path):
    config = tiny_config(sites, simulation={"poison": {"sites": ["nobody"]}})
    with pytest.raises(ConfigError, match="no site is called nobody; there are a, b, c, d"):
        simulate(config, out=tmp_path / "run")


def test_the_shipped_scenario_runs_with_tiny_models_and_every_way_of_poisoning(tiny_home, tmp_path, monkeypatch):
    monkeypatch.chdir(SCENARIO.parents[2])
    for how in ("labels", "reversed", "trigger"):
        tiny = ["models.generator=fedrag/tiny-causal", "models.retriever=fedrag/tiny-encoder", "federation.rounds=1"]
        short = [
            "evaluation.split=none",
            "retriever.epochs=1",
            "simulation.threads=1",
            'data.only=["cnsa", "esa", "nasa"]',
        ]
        config = Config.from_file(SCENARIO, [*tiny, *short, f"simulation.poison.how={how}"])
        run = simulate(config, out=tmp_path / how)
        assert list(run.rounds()[0]["sites"]) == ["cnsa", "esa", "nasa"]
