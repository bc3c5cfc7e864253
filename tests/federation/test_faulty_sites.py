"""What one bad site may do: nothing but be left out, by name."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from bad_replies import BAD_REPLIES, CANARY, put, with_values
from tiny_federation import (
    Lines,
    assert_same_state,
    client_folders,
    federate,
    node_configs,
    tiny_config,
    with_faults,
    write_small_sites,
)

from fedrag.errors import QuorumError
from fedrag.federation.messages import TRAIN
from fedrag.grids.in_process import InProcessGrid
from fedrag.site.client_app import make_client_app
from fedrag.training.losses import Losses

pytestmark = pytest.mark.usefixtures("tiny_home")

ONE_ROUND = {"rounds": 1, "schedule": "generator"}


@pytest.fixture(scope="module")
def sites(tmp_path_factory, tiny_home) -> Path:
    return write_small_sites(tmp_path_factory.mktemp("sites"), a=3, b=4, c=2)


@pytest.fixture(scope="module")
def without_b(tmp_path_factory, sites):
    """The result of the same rounds without site b, by schedule."""
    return {
        schedule: federate(
            tiny_config(sites, data={"hold_out": ["b"]}, federation={"rounds": 1, "schedule": schedule}),
            tmp_path_factory.mktemp("good") / "run",
        )[0]
        for schedule in ("generator", "joint")
    }


def changing(change):
    """Answer as the real app does, but change the reply's content on the way out."""

    def fault(message, context, real):
        reply = real(message, context)
        change(reply.content)
        return reply

    return fault


def raising(message, context, real):
    raise ValueError(CANARY)


FAULTS = {name: (changing(change), reason) for name, (change, reason) in BAD_REPLIES.items()}
FAULTS["a raising client"] = (raising, "its client failed (ValueError)")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_reply_costs_only_itself_and_is_named(fault, sites, without_b, tmp_path):
    answer, reason = FAULTS[fault]
    display = Lines()
    config = tiny_config(sites, federation=ONE_ROUND)
    state, run = federate(config, tmp_path / "run", app=with_faults({"b": answer}), display=display)
    record = run.rounds()[0]
    assert list(record["left_out"]) == ["b"]
    assert reason in record["left_out"]["b"]
    assert list(record["sites"]) == ["a", "c"]
    assert f"b is left out of round 1: {record['left_out']['b']}" in display.said
    assert_same_state(state, without_b["generator"])
    assert CANARY not in display.text
    assert CANARY not in everything_written(run.path)


def test_of_a_reply_with_one_bad_component_nothing_is_used(sites, without_b, tmp_path):
    fault = changing(with_values("retriever", lambda flat: put(flat, np.nan)))
    config = tiny_config(sites, federation={"rounds": 1})
    state, run = federate(config, tmp_path / "run", app=with_faults({"b": fault}))
    assert run.rounds()[0]["left_out"] == {"b": "its retriever update holds NaN or infinity"}
    assert_same_state(state, without_b["joint"])


def everything_written(path):
    """Return what a run folder holds outside the sites' own folders, as text."""
    files = [p for p in path.rglob("*") if p.is_file() and "sites" not in p.relative_to(path).parts]
    return "\n".join(file.read_bytes().decode("utf-8", errors="replace") for file in files)


def with_losses(losses):
    """Let a site train with a loss of its own."""
    app = make_client_app(losses)
    return lambda message, context, real: app(message, context)


def test_an_error_in_a_sites_training_leaves_as_a_code_and_the_id_of_its_log_entry(sites, without_b, tmp_path, caplog):
    def loss(logits, labels):
        raise RuntimeError(CANARY)

    display = Lines()
    config = tiny_config(sites, federation=ONE_ROUND)
    app = with_faults({"b": with_losses(Losses(answer=loss))})
    state, run = federate(config, tmp_path / "run", app=app, display=display)
    (site_log,) = [record for record in caplog.records if record.name == "fedrag.site"]
    error_id = site_log.getMessage().split()[1].rstrip(":")
    assert CANARY in site_log.getMessage()
    assert run.rounds()[0]["left_out"] == {"b": f"an error occurred there (error; error {error_id} in the site's log)"}
    assert_same_state(state, without_b["generator"])
    assert CANARY not in display.text
    assert CANARY not in everything_written(run.path)
    assert not any(CANARY in record.getMessage() for record in caplog.records if record is not site_log)


def test_a_site_whose_loss_is_not_finite_is_left_out_as_diverged(sites, without_b, tmp_path):
    config = tiny_config(sites, federation=ONE_ROUND)
    app = with_faults({"b": with_losses(Losses(answer=lambda logits, labels: logits.sum() * float("nan")))})
    state, run = federate(config, tmp_path / "run", app=app)
    assert run.rounds()[0]["left_out"]["b"].startswith("its training diverged (diverged;")
    assert_same_state(state, without_b["generator"])


def test_a_slow_site_stops_at_the_deadline_and_says_so(sites, without_b, tmp_path):
    def slow(logits, labels):
        time.sleep(2.1)
        return logits.sum() * 0

    config = tiny_config(sites, federation={**ONE_ROUND, "deadline_s": 2.0})
    app = with_faults({"b": with_losses(Losses(answer=slow))})
    state, run = federate(config, tmp_path / "run", app=app)
    assert run.rounds()[0]["left_out"]["b"].startswith("the deadline passed while it trained (deadline;")
    assert_same_state(state, without_b["generator"])


class HangingGrid(InProcessGrid):
    """In the first round site b never replies."""

    def pull_messages(self, message_ids):
        hanging = {
            key
            for key, message in self._waiting.items()
            if message.metadata.message_type == TRAIN
            and message.metadata.group_id == "1"
            and self._node_configs[message.metadata.dst_node_id]["site-name"] == "b"
        }
        return super().pull_messages(set(message_ids) - hanging)


def test_a_hanging_site_is_waited_for_until_the_deadline_and_asked_again_in_the_next_round(
    sites, tmp_path, monkeypatch
):
    monkeypatch.setattr("fedrag.federation.exchange.SAFETY_S", 0.0)
    display = Lines()
    config = tiny_config(sites, federation={"rounds": 2, "schedule": "generator", "deadline_s": 2.0})
    _, run = federate(config, tmp_path / "run", grid=HangingGrid, display=display)
    first, second = run.rounds()
    assert first["left_out"] == {"b": "no reply within 2 s"}
    assert 2.0 <= first["seconds"] < 10.0
    assert "b is left out of round 1: no reply within 2 s" in display.said
    assert list(second["sites"]) == ["a", "b", "c"]


def only_in_round(number, fault):
    def answer(message, context, real):
        bad = message.content["request"]["round"] == number
        return fault(message, context, real) if bad else real(message, context)

    return answer


def test_too_few_good_replies_stop_the_run_and_it_goes_on_as_if_nothing_had_been(sites, tmp_path):
    config = tiny_config(sites, federation={"rounds": 3, "schedule": "generator"})
    expected, _ = federate(config, tmp_path / "undisturbed")
    bad = only_in_round(2, FAULTS["NaN"][0])
    with pytest.raises(QuorumError) as caught:
        federate(config, tmp_path / "run", app=with_faults({"b": bad, "c": bad}))
    sentence = str(caught.value)
    assert sentence == (
        "round 2: 1 of 3 sites gave a valid reply, 2 are needed "
        "(b: its generator update holds NaN or infinity; c: its generator update holds NaN or infinity)"
    )
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["round-0000", "round-0001"]
    display = Lines()
    state, run = federate(config, tmp_path / "run", display=display)
    assert "going on after round 1" in display.said
    assert [record["round"] for record in run.rounds()] == [1, 2, 3]
    assert_same_state(state, expected)


def test_exactly_the_quorum_is_enough(sites, tmp_path):
    app = with_faults({"b": FAULTS["NaN"][0]})
    two_thirds = tiny_config(sites, federation={**ONE_ROUND, "quorum": 2 / 3})
    federate(two_thirds, tmp_path / "run", app=app)
    with pytest.raises(QuorumError, match="2 of 3 sites gave a valid reply, 3 are needed"):
        federate(tiny_config(sites, federation={**ONE_ROUND, "quorum": 0.67}), tmp_path / "strict", app=app)


def test_the_quorum_counts_the_sites_that_were_asked(sites, tmp_path):
    """Two of three are asked: with one of them bad, half is reached."""
    config = tiny_config(sites, federation={**ONE_ROUND, "fraction": 0.6})
    _, probe = federate(config, tmp_path / "probe")
    bad, good = probe.rounds()[0]["asked"]
    _, run = federate(config, tmp_path / "run", app=with_faults({bad: FAULTS["NaN"][0]}))
    assert list(run.rounds()[0]["sites"]) == [good]


def test_a_user_s_rule_sees_the_good_updates_alone_in_order_of_name(sites, tmp_path):
    seen = []

    def first_one(differences, weights):
        seen.append((len(differences), weights))
        return differences[0]

    config = tiny_config(sites, federation=ONE_ROUND)
    state, _ = federate(config, tmp_path / "run", app=with_faults({"b": FAULTS["NaN"][0]}), rule=first_one)
    assert seen == [(2, [3, 2])]
    folders = client_folders(config)[:1]
    alone, _ = federate(config, tmp_path / "alone", nodes=node_configs(folders, tmp_path / "caches"))
    assert_same_state(state, alone)
