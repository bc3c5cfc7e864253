"""What a site claims is believed within bounds: the weights of a round, checked by hand against the updates sent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bad_replies import with_values
from hypothesis import given
from hypothesis import strategies as st
from tiny_federation import Lines, assert_same_state, federate, tiny_config, with_faults, write_small_sites

from fedrag.components.state import initial_state
from fedrag.federation.aggregation import WEIGHT_LIMIT
from fedrag.federation.claims import Claims
from fedrag.federation.codec import decode
from fedrag.federation.messages import GREET, TRAIN, VALIDATE
from fedrag.federation.scoring import _mean_score
from fedrag.federation.update import manifest_of, unflatten
from fedrag.grids.in_process import InProcessGrid
from fedrag.reporting.page import render
from fedrag.reporting.round_log import cut_weights
from fedrag.site.client_app import make_client_app

pytestmark = pytest.mark.usefixtures("tiny_home")

HUGE = WEIGHT_LIMIT - 1
REAL = make_client_app()


class Recording(InProcessGrid):
    """Keeps the update of each site, by name, as it was sent."""

    updates: dict[str, np.ndarray] = {}

    def pull_messages(self, message_ids):
        found = super().pull_messages(message_ids)
        for reply in found:
            if reply.metadata.message_type == TRAIN:
                name = self._node_configs[reply.metadata.src_node_id]["site-name"]
                raw = reply.content["update"]["generator"].numpy()
                self.updates[name] = decode(raw, "float32", raw.size // 4)
        return found


def claiming(name, count, scale=1.0):
    """Return a client app in which one site claims so many questions, from its greeting on."""

    def app(message, context):
        reply = REAL(message, context)
        if context.node_config["site-name"] == name and message.metadata.message_type == GREET:
            reply.content["counts"].update(dict.fromkeys(reply.content["counts"], count))
        if context.node_config["site-name"] == name and message.metadata.message_type == TRAIN:
            reply.content["metrics"]["num-examples.generator"] = count
            with_values("generator", lambda flat: scale * flat)(reply.content)
        return reply

    return app


def config(sites: Path, **federation):
    return tiny_config(sites, federation={"rounds": 1, "schedule": "generator"} | federation)


@pytest.fixture(scope="module")
def sites(tmp_path_factory) -> Path:
    return write_small_sites(tmp_path_factory.mktemp("sites"), a=3, b=4, c=2)


def averaged(sites, path, app, display=None, **federation):
    """Run one round; return what the state moved by, the updates that were sent, and the run."""
    Recording.updates = {}
    settings = config(sites, **federation)
    state, run = federate(settings, path, grid=Recording, app=app, display=display or Lines())
    before = initial_state(settings, ("generator",))["generator"]
    moved = {name: tensor - before[name] for name, tensor in state["generator"].items()}
    manifest = manifest_of(before)
    return moved, {name: unflatten(flat, manifest) for name, flat in Recording.updates.items()}, run


def assert_mean(moved, updates, weights):
    """Compare with the weighted mean that is computed here, in float64 and another order."""
    total = sum(weights.values())
    for name, tensor in moved.items():
        mean = sum(weights[site] / total * updates[site][name].astype(np.float64) for site in reversed(sorted(weights)))
        np.testing.assert_allclose(tensor, mean, rtol=1e-4, atol=2e-7)


def test_a_site_that_claims_half_a_billion_questions_counts_for_ten_times_the_median(sites, tmp_path):
    """It told of as many in its greeting, so the count was no lie that anyone saw: its update became the model."""
    display = Lines()
    moved, updates, run = averaged(sites, tmp_path / "run", claiming("c", HUGE, scale=50.0), display)
    assert_mean(moved, updates, {"a": 3, "b": 4, "c": 40})
    assert run.rounds()[0]["weights_cut"] == {"c": {"generator": 40}}
    line = (
        "c counts for 40 generator questions in round 1, not for the 536,870,911 that it claims: no site counts for "
        "more than 10 times the median claim (federation.max_weight_ratio)"
    )
    assert line in display.said
    assert cut_weights(run.rounds()) == ["c: its generator counted for 40 questions, it claimed 536,870,911: round 1"]
    assert "its generator counted for 40 questions, it claimed 536,870,911: round 1" in render(run)


def test_of_two_sites_the_smaller_claim_is_the_median(tmp_path):
    """The mean of the two middle claims would be half of the false one."""
    sites = write_small_sites(tmp_path / "sites", a=3, c=2)
    moved, updates, _ = averaged(sites, tmp_path / "run", claiming("c", HUGE), max_weight_ratio=2.5)
    assert_mean(moved, updates, {"a": 3, "c": 7})


def test_zero_switches_the_bound_off(sites, tmp_path):
    moved, updates, run = averaged(sites, tmp_path / "run", claiming("c", 3000), max_weight_ratio=0)
    assert_mean(moved, updates, {"a": 3, "b": 4, "c": 3000})
    assert run.rounds()[0]["weights_cut"] == {}


def test_where_it_does_not_bite_nothing_changes_and_nothing_is_said(sites, tmp_path):
    display = Lines()
    bounded, _ = federate(config(sites), tmp_path / "bounded", display=display)
    free, run = federate(config(sites, max_weight_ratio=0), tmp_path / "free")
    assert_same_state(bounded, free)
    assert run.rounds()[0]["weights_cut"] == {}
    assert "counts for" not in display.text
    assert "counted for" not in render(run)


def test_where_all_count_the_same_no_claim_plays_a_part(sites, tmp_path):
    moved, updates, run = averaged(sites, tmp_path / "run", claiming("c", HUGE), weighting="equal")
    assert_mean(moved, updates, {"a": 1, "b": 1, "c": 1})
    assert run.rounds()[0]["weights_cut"] == {}


def test_a_rule_of_one_s_own_is_given_the_bounded_weights(sites, tmp_path):
    seen = []

    def first_one(differences, weights):
        seen.append(weights)
        return differences[0]

    federate(config(sites), tmp_path / "run", app=claiming("c", HUGE), rule=first_one)
    assert seen == [[3, 4, 40]]


class Enrolled(Recording):
    """A grid that knows how many questions were confirmed at each site's registration, as a coordinator's does."""

    @property
    def confirmed_questions(self):
        names = {node: config["site-name"] for node, config in self._node_configs.items()}
        return {node: 2 for node, name in names.items() if name == "c"}


def test_a_claim_above_what_was_confirmed_at_enrolment_is_cut_to_it_and_named(sites, tmp_path):
    display = Lines()
    settings = config(sites, max_weight_ratio=0)
    state, run = federate(settings, tmp_path / "run", grid=Enrolled, app=claiming("c", HUGE), display=display)
    honest, _ = federate(settings, tmp_path / "honest")
    assert_same_state(state, honest)
    assert run.rounds()[0]["weights_cut"] == {"c": {"generator": 2}}
    assert (
        "c counts for 2 generator questions in round 1, not for the 536,870,911 that it claims: 2 were confirmed when "
        "it was registered"
    ) in display.said


def test_a_confirmed_count_bounds_the_median_too():
    told = {"a": 3, "b": HUGE, "c": HUGE}
    claims = Claims({"generator": told}, {"b": 5, "c": 5}, ratio=2.0)
    assert [claims.weight(site, "generator", told[site]) for site in told] == [3, 5, 5]
    assert claims.medians == {"generator": 5}


def test_a_site_that_may_learn_from_few_of_its_questions_claims_no_more(sites, tmp_path):
    """With retriever.lsr.max_questions = 1 honest sites learn from one question each, whatever they have."""
    display = Lines()

    def app(message, context):
        reply = REAL(message, context)
        if context.node_config["site-name"] == "c" and message.metadata.message_type == TRAIN:
            assert reply.content["metrics"]["num-examples.retriever"] == 1
            reply.content["metrics"]["num-examples.retriever"] = 1000
        if context.node_config["site-name"] == "c" and message.metadata.message_type == GREET:
            reply.content["counts"].update(dict.fromkeys(reply.content["counts"], 1000))
        return reply

    lsr = {"loss": "lsr", "lsr": {"candidates": 2, "max_questions": 1}}
    settings = tiny_config(sites, federation={"rounds": 1, "schedule": "retriever"}, retriever=lsr)
    _, run = federate(settings, tmp_path / "run", app=app, display=display)
    assert run.rounds()[0]["weights_cut"] == {"c": {"retriever": 10}}


CLAIMS = st.dictionaries(st.sampled_from("abcdefghij"), st.integers(1, HUGE), min_size=1)


@given(CLAIMS, st.floats(1.0, 100.0), st.dictionaries(st.sampled_from("abcdefghij"), st.integers(1, 10**6)))
def test_no_site_ever_counts_for_more_than_its_claim_the_confirmed_number_or_the_ratio(told, ratio, confirmed):
    claims = Claims({"generator": told}, confirmed, ratio)
    weights = {site: claims.weight(site, "generator", claimed) for site, claimed in told.items()}
    believed = sorted(min(claimed, confirmed.get(site, claimed)) for site, claimed in told.items())
    for site, weight in weights.items():
        assert 1 <= weight <= told[site]
        assert weight <= confirmed.get(site, weight)
        assert weight <= max(1.0, ratio * believed[(len(believed) - 1) // 2])


def test_a_bad_reply_of_the_greedy_site_costs_its_reply_alone(sites, tmp_path):
    """More than it told in its greeting is still no count: nothing is cut, the reply is left out."""

    def more(message, context, real):
        reply = real(message, context)
        reply.content["metrics"]["num-examples.generator"] = HUGE
        return reply

    _, run = federate(config(sites), tmp_path / "run", app=with_faults({"c": more}))
    assert "but told of 2" in run.rounds()[0]["left_out"]["c"]
    assert run.rounds()[0]["weights_cut"] == {}


def test_the_choice_of_the_best_round_is_no_single_site_s_either(sites, tmp_path):
    """With a count of a billion behind its validation one site alone chose which round's tensors were kept."""

    def spoiling(message, context, real):
        reply = real(message, context)
        reply.content["metrics"].update({"metric.retriever.sum": 0.0, "metric.retriever.count": 1e9})
        return reply

    settings = tiny_config(sites, federation={"rounds": 1, "schedule": "retriever", "validate_every": 1})
    _, run = federate(settings, tmp_path / "run", app=with_faults({"c": spoiling}, VALIDATE))
    # a and b have two questions each, and c counts for ten times two: it was 4e-9.
    assert 0.05 < run.rounds()[0]["validation"]["retriever"] <= 4 / 24
    assert _mean_score([{"x.sum": 1.0, "x.count": 2.0}] * 2 + [{"x.sum": 1e9, "x.count": 1e9}], "x", 10.0) == 22 / 24
    assert _mean_score([{"x.sum": 5.0, "x.count": 2.0}, {"x.sum": -9.0, "x.count": -2.0}], "x", 10.0) == 2.5
    assert _mean_score([{"x.sum": 1.0, "x.count": 0.5}, {}], "x", 10.0) is None
