"""A simulation with noise: each site keeps its ledger, the report says what was spent, and no round passes epsilon."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_federation import Lines, small_site, tiny_config, write_small_sites

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
    assert [len(PrivacyLedger(run.path / "sites" / name / LEDGER_FILE).entries()) for name in "abc"] == [1, 1, 1]


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
