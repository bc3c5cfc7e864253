"""A round that asks more sites than it needs closes with the first replies, and names who was late."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_federation import Lines, assert_same_state, federate, tiny_config, with_faults, write_small_sites

from fedrag.errors import ConfigError, MessageError
from fedrag.federation.exchange import KnownSite
from fedrag.federation.fold import _order_of_asking
from fedrag.federation.greeting import Greeting
from fedrag.federation.messages import Request
from fedrag.federation.rounds import round_line
from fedrag.reporting.page import render
from fedrag.simulation.plan import plan_lines

pytestmark = pytest.mark.usefixtures("tiny_home")

FIRST_TWO_OF_THREE = {"rounds": 1, "schedule": "retriever", "fraction": 0.5, "overselect": 0.5}


@pytest.fixture(scope="module")
def sites(tmp_path_factory, tiny_home) -> Path:
    return write_small_sites(tmp_path_factory.mktemp("sites"), a=2, b=3, c=4, d=2)


def refuse(message, context, real):
    raise MessageError("it cannot")


def test_the_first_replies_are_the_round_and_what_is_late_counts_for_nothing(sites, tmp_path):
    display, trained = Lines(), []

    def note(message, context, real):
        trained.append(str(context.node_config["site-name"]))
        return real(message, context)

    app = with_faults(dict.fromkeys("abcd", note))
    state, run = federate(tiny_config(sites, federation=FIRST_TWO_OF_THREE), tmp_path / "run", app=app, display=display)
    (record,) = run.rounds()
    assert (len(record["asked"]), len(record["sites"]), len(record["late"]), record["left_out"]) == (3, 2, 1, {})
    assert set(record["asked"]) == {*record["sites"], *record["late"]}
    assert sorted(trained) == list(record["sites"])  # in one process, who is late has not even begun
    (late,) = record["late"]
    assert f"round 1 closed with 2 replies; late: {late}" in display.said
    assert round_line(record, 1).startswith("round 1/1: 2 of 3 sites (1 late), ")
    page = render(run)
    assert "Sites that were late" in page
    assert f"{late}: round 1, of 1 that asked it; it had worked for" in page
    alone = tiny_config(sites, data={"only": list(record["sites"])}, federation={"rounds": 1, "schedule": "retriever"})
    expected, plain = federate(alone, tmp_path / "alone")
    assert_same_state(state, expected)
    assert "late" not in plain.rounds()[0]
    assert "Sites that were late" not in render(plain)


def test_a_reply_that_is_not_valid_closes_no_round_and_the_quorum_counts_the_needed_ones(sites, tmp_path):
    config = tiny_config(sites, federation={**FIRST_TWO_OF_THREE, "quorum": 1.0})
    _, plain = federate(config, tmp_path / "plain")
    (first, *_) = plain.rounds()[0]["sites"]
    _, run = federate(config, tmp_path / "run", app=with_faults({first: refuse}))
    (record,) = run.rounds()
    assert list(record["left_out"]) == [first]
    assert (len(record["sites"]), record["late"]) == (2, {})
    assert first not in record["sites"]


def test_no_name_is_favoured_where_a_grid_answers_in_the_order_of_asking():
    sites = [KnownSite(node, Greeting(name, "", {}, {})) for node, name in enumerate("abcd")]
    config = tiny_config(federation=FIRST_TWO_OF_THREE)
    firsts = [_order_of_asking(config, Request("", number), sites)[0].name for number in range(40)]
    assert set(firsts) == set("abcd")
    assert firsts == [_order_of_asking(config, Request("", number), sites)[0].name for number in range(40)]
    usual = tiny_config(federation={"rounds": 1})
    assert [site.name for site in _order_of_asking(usual, Request("", 1), sites)] == list("abcd")


def test_more_than_all_sites_cannot_be_asked():
    with pytest.raises(ConfigError, match="federation.fraction = 1 needs all of them; set a smaller fraction"):
        tiny_config(federation={"overselect": 0.3})


def test_a_dry_run_says_how_many_are_asked_and_how_many_count(sites):
    lines = plan_lines(tiny_config(sites, federation=FIRST_TWO_OF_THREE))
    assert "each round asks 3 of 4 sites, and takes the first 2 that reply" in lines
