"""A simulation by secure sum: the same bits in both grids, refused with too few sites, and what is told of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_federation import assert_same_state, client_folders, tiny_config, write_small_sites

from fedrag.errors import ConfigError
from fedrag.reporting.page import write_report
from fedrag.simulation.plan import plan_lines
from fedrag.simulation.simulate import simulate
from fedrag.tracking.run_log import round_values

pytestmark = pytest.mark.usefixtures("tiny_home")

SECURE = {"rounds": 1, "schedule": "generator", "secure": True}


@pytest.fixture(scope="module")
def sites(tmp_path_factory, tiny_home) -> Path:
    return write_small_sites(tmp_path_factory.mktemp("sites"), a=3, b=4, c=5, d=3, e=3)


@pytest.fixture(scope="module")
def in_process(tmp_path_factory, sites):
    return simulate(tiny_config(sites, federation=SECURE), out=tmp_path_factory.mktemp("secure") / "run")


@pytest.mark.slow
def test_both_grids_give_the_same_bits(in_process, sites, tmp_path):
    config = tiny_config(sites, federation=SECURE, simulation={"grid": "ray", "actors": 2, "threads": 1})
    assert_same_state(simulate(config, out=tmp_path / "run").load_result(), in_process.load_result())


def test_the_report_shows_the_mean_loss_and_says_what_could_not_be_measured(in_process):
    write_report(in_process)
    page = (in_process.path / "report.html").read_text(encoding="utf-8")
    assert "Mean over the sites; that of each is hidden by the secure sum." in page
    assert "Aggregation error of the generator" not in page
    assert "no site&#39;s loss, norm or counts were seen" in page
    [record] = in_process.rounds()
    assert round_values(record)["generator/loss"] == record["together"]["generator.loss"]


def test_the_dry_run_says_how_many_sites_may_vanish(sites):
    five = tiny_config(sites, federation=SECURE)
    assert any("a round bears 1 that vanishes, 4 must stay" in line for line in plan_lines(five))
    three = tiny_config(sites, data={"only": ["a", "b", "c"]}, federation=SECURE)
    assert any("even with 1 site on its side; no site may vanish, 3 must stay" in line for line in plan_lines(three))


def test_too_few_sites_for_a_secure_sum_are_refused_before_anything_runs(sites):
    for settings, told in (
        (
            {"data": {"hold_out": ["c", "d", "e"]}},
            "needs 3 sites in a round, and there are 2: of two, each would learn",
        ),
        ({"federation": {**SECURE, "fraction": 0.4}}, "needs 3 sites in a round, and there are 2"),
        ({"federation": {**SECURE, "secure_colluding": 4}}, "a secure sum hides a site from the server and at most 3"),
    ):
        config = tiny_config(sites, **{"federation": SECURE, **settings})
        assert len(client_folders(config)) >= 2
        with pytest.raises(ConfigError, match=told):
            plan_lines(config)
