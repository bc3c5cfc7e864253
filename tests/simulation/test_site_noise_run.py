"""A simulation with noise that covers whole clients."""

from __future__ import annotations

import pytest
from tiny_federation import Lines, tiny_config, write_small_sites

from fedrag.components.state import initial_state
from fedrag.dp import site_noise
from fedrag.dp.accounting import epsilon_of
from fedrag.dp.site_noise import WARNING, noised_steps
from fedrag.errors import ConfigError
from fedrag.reporting.page import write_report
from fedrag.simulation.plan import plan_lines
from fedrag.simulation.simulate import resume, simulate

pytestmark = pytest.mark.usefixtures("tiny_home")


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Return a function that makes a scenario of three clients, which count as many."""
    monkeypatch.setattr(site_noise, "FEWEST_CLIENTS", 3)
    sites = write_small_sites(tmp_path / "data", a=3, b=3, c=3)

    def make(fraction=1.0):
        return tiny_config(
            sites,
            federation={"rounds": 2, "schedule": "retriever", "weighting": "equal", "fraction": fraction},
            retriever={"loss": "contrastive"},
            simulation={"site_noise": {"epsilon": 6.0}},
        )

    return make


def test_its_rounds_spend_epsilon_and_its_log_dry_run_and_report_say_what_holds(config, tmp_path):
    display = Lines()
    run = simulate(config(), out=tmp_path / "run", display=display)
    assert WARNING in display.text
    spent = epsilon_of(noised_steps(run.rounds()), 1 / 30)
    assert 5.9 < spent <= 6.0
    assert [record["site_noise"]["clients"] for record in run.rounds()] == [3, 3]
    assert all(record["aggregation_error"] == {} for record in run.rounds())
    report = write_report(run).read_text(encoding="utf-8")
    assert f"for whole clients, epsilon up to 6 at delta 0.033; spent: {spent:.2f}; a figure for a simulation" in report
    plan = "\n".join(plan_lines(config()))
    assert "site noise: epsilon 6 for each whole client at delta 0.033, 2 steps in all" in plan
    assert "weights: of 3 clients, noise" in plan
    with pytest.raises(ConfigError, match="is spent"):
        resume(run.path, rounds=3)


def test_a_round_that_draws_nobody_is_noise_alone(config, tmp_path):
    run = simulate(config(fraction=1e-9), out=tmp_path / "run")
    assert [record["asked"] for record in run.rounds()] == [[], []]
    before = initial_state(run.config, ("retriever",))["retriever"]
    assert any((tensor != before[name]).any() for name, tensor in run.load_result()["retriever"].items())


def test_few_clients_are_refused_before_anything_is_trained(config, tmp_path, monkeypatch):
    monkeypatch.setattr(site_noise, "FEWEST_CLIENTS", 100)
    with pytest.raises(ConfigError, match="needs 100 clients or more, and there are 3"):
        simulate(config(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
