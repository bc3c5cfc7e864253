"""A simulation with noise: each site keeps its ledger, the report says what was spent, and no round passes epsilon."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import pytest
from tiny_federation import Lines, small_site, tiny_config, write_small_sites

from fedrag.components.state import initial_state
from fedrag.config.scenario import Config
from fedrag.data.writing import write_site
from fedrag.dp.ledger import LEDGER_FILE, PrivacyLedger
from fedrag.errors import ConfigError, QuorumError
from fedrag.reporting.page import write_report
from fedrag.simulation.plan import plan_lines
from fedrag.simulation.simulate import resume, simulate

pytestmark = pytest.mark.usefixtures("tiny_home")

CONTRASTIVE = {"contrastive": {"hard_negatives": 2, "hard_negative_margin": 0.0}}


def private(sites, **settings) -> Config:
    usual = {
        "federation": {"rounds": 1, "schedule": "retriever"},
        "retriever": CONTRASTIVE,
        "privacy": {"epsilon": 8.0, "steps": 1},
    }
    return tiny_config(sites, **(usual | settings))


def test_each_site_keeps_its_ledger_and_no_round_passes_epsilon(tmp_path):
    sites, display = write_small_sites(tmp_path / "data", a=3, b=4), Lines()
    run = simulate(private(sites), out=tmp_path / "run", display=display)
    spent = {}
    for name, units in (("a", 3), ("b", 4)):
        ledger = PrivacyLedger(run.path / "sites" / name / LEDGER_FILE)
        assert [(entry.round, entry.component, entry.units) for entry in ledger.entries()] == [(1, "retriever", units)]
        spent[name] = ledger.epsilon(1 / (10 * units))
        assert 7.9 < spent[name] <= 8.0
    assert f"epsilon at most {max(spent.values()):.2f}" in display.text
    report = write_report(run).read_text(encoding="utf-8")
    assert f"spent: a {spent['a']:.2f}, b {spent['b']:.2f}" in report
    [record] = run.rounds()
    assert not any("loss" in key for told in record["sites"].values() for key in told)
    with pytest.raises(QuorumError, match="epsilon of this run is spent there"):
        resume(run.path, rounds=2)
    assert len(PrivacyLedger(run.path / "sites" / "a" / LEDGER_FILE).entries()) == 1, "refused before it began"


def test_noise_goes_into_a_secure_sum_and_no_site_tells_what_it_spent(tmp_path):
    sites = write_small_sites(tmp_path / "data", a=3, b=4, c=3)
    secure = {"rounds": 1, "schedule": "retriever", "secure": True}
    run = simulate(private(sites, federation=secure), out=tmp_path / "run")
    [record] = run.rounds()
    assert record["sites"].keys() == {"a", "b", "c"}
    assert all(told.keys() == {"bytes"} for told in record["sites"].values())
    assert record["together"] == {"retriever.examples": 10}
    assert record["update_norm"]["retriever"] > 0
    ledgers = {name: PrivacyLedger(run.path / "sites" / name / LEDGER_FILE) for name in "abc"}
    assert [len(ledger.entries()) for ledger in ledgers.values()] == [1, 1, 1]
    spent = [f"{name} {ledgers[name].epsilon(1 / (10 * units)):.2f}" for name, units in (("a", 3), ("b", 4), ("c", 3))]
    assert f"spent: {', '.join(spent)}; passages" in write_report(run).read_text(encoding="utf-8")
    shutil.rmtree(run.path / "sites")  # in a deployed run they are not here
    report = write_report(run).read_text(encoding="utf-8")
    assert "spent: each site keeps it in its own privacy.jsonl and did not tell; passages" in report


def test_the_dry_run_says_what_epsilon_costs_and_what_would_cost_less(tmp_path):
    sites = write_small_sites(tmp_path / "data", a=3, b=4)
    text = "\n".join(plan_lines(private(sites)))
    assert "privacy: epsilon 8 for each question and its site, 1 step in all" in text
    assert "at 3 questions epsilon 8 means noise" in text
    assert "with 2,000 it would be" in text
    assert 'federation.retriever.rule = "ffa"' in text
    assert "retriever.lora.rank = 1" in text
    assert "noise" not in "\n".join(plan_lines(private(sites, privacy={})))


def test_the_dry_run_speaks_of_subjects_where_questions_name_them(tmp_path):
    site = small_site("a")
    train = tuple(replace(q, subject=f"patient {number // 2}") for number, q in enumerate(site.train))
    write_site(tmp_path / "data" / "a", replace(site, train=train))
    assert "at 2 subjects epsilon 8" in "\n".join(plan_lines(private(tmp_path / "data")))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"retriever": {}}, "in-batch negatives"),
        ({"retriever": {"loss": "lsr", "lsr": {"max_questions": 5}}}, "max_questions"),
        ({"federation": {"schedule": "generator"}, "generator": {"raft_drop": 0.5}}, "raft_drop"),
        ({"federation": {"schedule": "iterate"}}, "iterate"),
        ({"federation": {"components": ("retriever",)}}, "federation.components"),
        ({"evaluation": {"split": "test", "rates": (1e-3, 2e-3)}}, "evaluation.rates"),
        ({"own": {"module": "own_module"}}, "own.module"),
    ],
)
def test_what_lets_one_question_act_through_others_is_refused_with_the_reason(tmp_path, settings, reason):
    with pytest.raises(ConfigError, match=reason):
        private(tmp_path, **settings)


def test_the_in_batch_negatives_are_no_fault_where_the_generator_alone_learns(tmp_path):
    assert private(tmp_path, federation={"schedule": "generator"}, retriever={}).privacy.is_on


def test_an_encoder_that_finds_no_hard_negatives_is_refused_before_anything_is_trained(tmp_path):
    sites = write_small_sites(tmp_path / "data", a=3, b=4)
    config = private(sites, retriever={"contrastive": {"hard_negatives": 2}})
    told = r"hard_negative_margin = 0\.05: fedrag/tiny-encoder finds no hard negatives.*set it to 0"
    with pytest.raises(ConfigError, match=told):
        plan_lines(config)
    with pytest.raises(ConfigError, match=told):
        simulate(config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sites_where_every_passage_is_right_are_refused_before_anything_is_trained(tmp_path):
    site = small_site("a")
    every = tuple(passage.id for passage in site.passages)
    write_site(tmp_path / "data" / "a", replace(site, train=tuple(replace(q, passage_ids=every) for q in site.train)))
    with pytest.raises(ConfigError, match="all passages are right for all its questions; add passages"):
        plan_lines(private(tmp_path / "data"))


def test_negatives_that_questions_name_need_no_encoder_that_finds_some(tmp_path):
    site = small_site("a")
    wrong = {q.id: next(p.id for p in site.passages if p.id not in q.passage_ids) for q in site.train}
    named = tuple(replace(q, hard_negative_ids=(wrong[q.id],)) for q in site.train)
    write_site(tmp_path / "data" / "a", replace(site, train=named))
    assert "privacy: epsilon 8" in "\n".join(
        plan_lines(private(tmp_path / "data", retriever={"contrastive": {"hard_negatives": 2}}))
    )


def learning_weights(config: Config) -> str:
    """What the plan says of how many of the retriever's weights learn."""
    found = re.search(r"retriever: (.*) learn from", "\n".join(plan_lines(config)))
    assert found
    return found[1]


def test_the_plan_counts_the_weights_that_learn_and_not_a_frozen_factor(tmp_path):
    sites = write_small_sites(tmp_path / "data", a=3, b=4)
    state = initial_state(tiny_config(sites), ("retriever",))["retriever"]
    a = sum(tensor.size for name, tensor in state.items() if ".lora_A." in name)
    b = sum(tensor.size for name, tensor in state.items() if ".lora_B." in name)
    plans = {
        rule: private(sites, federation={"rounds": 2, "schedule": "retriever", "rule": rule})
        for rule in ("fedavg", "ffa", "rolora")
    }
    assert learning_weights(plans["fedavg"]) == f"{a + b:,} weights"
    assert learning_weights(plans["ffa"]) == f"{b:,} weights"
    assert a == b
    assert learning_weights(plans["rolora"]) == f"{b:,} weights"
    for rule in ("ffa", "rolora"):
        assert f"retriever, {b:,} weights: at 3 questions" in "\n".join(plan_lines(plans[rule]))
