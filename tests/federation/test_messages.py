"""What server and sites say to each other, and what either of them refuses to read."""

from __future__ import annotations

import gc
import math
import weakref

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedrag.errors import MessageError
from fedrag.federation.greeting import NAME_LENGTH, POLICY_RULES, Greeting, greeting_content, open_greeting
from fedrag.federation.messages import (
    TRAIN,
    Reply,
    Request,
    array_bytes,
    drop_arrays,
    open_reply,
    open_request,
    reply_content,
    request_content,
)
from fedrag.federation.refusal_codes import REFUSALS
from fedrag.federation.update import flatten, manifest_of
from fedrag.types import ModelIdentity

STATE = {
    "generator": {"q.lora_B.weight": np.arange(6, dtype=np.float32).reshape(3, 2), "a": np.ones(1, np.float32)},
    "retriever": {"w": np.array([1.5, -2.0], np.float32)},
}
MANIFESTS = {component: manifest_of(tensors) for component, tensors in STATE.items()}
REPLY = Reply(
    update={component: flatten(tensors, MANIFESTS[component]) for component, tensors in STATE.items()},
    num_examples={"generator": 3, "retriever": 4},
    metrics={"seconds": 1.5, "generator.loss": 0.25},
)


@pytest.fixture(autouse=True)
def _sender():
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 0, 1, 1


def message(content):
    return Message(content, 2, TRAIN)


def opened_reply(change=lambda content: None, reply=REPLY):
    content = reply_content(reply, MANIFESTS, "float32")
    change(content)
    return open_reply(message(content), MANIFESTS, "float32")


def test_a_request_comes_back_as_it_was_written():
    request = Request("name = 'x'", 3, STATE, ("generator",), {"generator": 2, "retriever": 1}, 12.5, "float32")
    found = open_request(message(request_content(request)))
    assert (found.scenario, found.round_number, found.components) == ("name = 'x'", 3, ("generator",))
    assert (found.past_rounds, found.deadline_s, found.wire) == ({"generator": 2, "retriever": 1}, 12.5, "float32")
    for component, tensors in STATE.items():
        assert list(found.state[component]) == list(tensors)
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(found.state[component][name], tensor)


def test_a_component_is_one_array_and_bfloat16_halves_its_bytes():
    content = request_content(Request("", state=STATE))
    assert {name: len(record) for name, record in content.array_records.items()} == {"state": 2}
    full, half = (array_bytes(request_content(Request("", state=STATE, wire=w))) for w in ("float32", "bfloat16"))
    header = len(Array(np.zeros(0, np.uint8)).data)
    assert (full, half) == (2 * header + 4 * 9, 2 * header + 2 * 9)


def test_where_updates_are_int8_the_state_goes_in_bfloat16():
    """A state of 2**-9 more than 1 is a tie of bfloat16; in int8 it would be rounded anew in every round."""
    state = {"generator": {"a": np.array([1.0, 1 + 2**-9, 1e-6, 300.0], np.float32)}}
    found, half = (
        open_request(message(request_content(Request("", state=state, wire=w)))) for w in ("int8", "bfloat16")
    )
    assert found.wire == "int8"
    np.testing.assert_array_equal(found.state["generator"]["a"], half.state["generator"]["a"])
    np.testing.assert_allclose(found.state["generator"]["a"], state["generator"]["a"], rtol=2**-8)


def test_the_arrays_of_a_request_can_be_written_to_at_the_site():
    found = open_request(message(request_content(Request("", state=STATE))))
    found.state["generator"]["a"][0] = 5.0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.pop("request"),
        lambda c: c.pop("state"),
        lambda c: c["request"].pop("manifest.generator"),
        lambda c: c["request"].update({"manifest.generator": "[["}),
        lambda c: c["request"].update({"manifest.generator": '[["a",[99]]]'}),
        lambda c: c["request"].update({"round": "one"}),
        lambda c: c["request"].update({"components": "generator"}),
        lambda c: c["request"].update({"wire": "float8"}),
    ],
)
def test_a_malformed_request_is_a_message_error(spoil):
    content = request_content(Request("", state=STATE, components=("generator",)))
    spoil(content)
    with pytest.raises(MessageError):
        open_request(message(content))


def test_another_protocol_is_refused_by_both_numbers():
    content = request_content(Request(""))
    content["request"]["protocol"] = 7
    with pytest.raises(MessageError, match="protocol 7, this site 1"):
        open_request(message(content))


def test_a_reply_comes_back_as_it_was_written():
    found = opened_reply()
    assert found.num_examples == REPLY.num_examples
    assert found.metrics == REPLY.metrics
    for component, flat in REPLY.update.items():
        np.testing.assert_array_equal(found.update[component], flat)


def test_a_reply_in_int8_is_rounded_by_the_sites_seed_and_each_component_by_its_own():
    update = np.random.default_rng(0).standard_normal(640).astype(np.float32)
    manifests = {component: manifest_of({"w": update}) for component in ("generator", "retriever")}
    reply = Reply(dict.fromkeys(manifests, update), dict.fromkeys(manifests, 1))

    def opened(seed):
        return open_reply(message(reply_content(reply, manifests, "int8", seed)), manifests, "int8").update

    one, again, other = opened(1), opened(1), opened(2)
    for component in manifests:
        np.testing.assert_array_equal(one[component], again[component])
        assert (one[component] != other[component]).mean() > 0.2
        assert np.abs(one[component] - update).max() < np.abs(update).max() / 127 * 1.001
    assert (one["generator"] != one["retriever"]).mean() > 0.2


@pytest.mark.parametrize("wire", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_refused_in_any_number_format(wire, value):
    reply = Reply({"retriever": np.array([1.0, value], np.float32)}, {"retriever": 4})
    with pytest.raises(MessageError, match="NaN or infinity"):
        open_reply(message(reply_content(reply, MANIFESTS, wire)), MANIFESTS, wire)


def test_a_reply_may_hold_fewer_components_than_were_asked_for():
    one = Reply({"retriever": REPLY.update["retriever"]}, {"retriever": 4})
    assert list(opened_reply(reply=one).update) == ["retriever"]


def test_only_the_metrics_we_know_and_finite_ones_are_read():
    """A metric's name is a text that a site chooses."""

    def add(content):
        content["metrics"]["metric.the patient is Smith"] = 1.0
        content["metrics"]["metric.retriever.loss"] = math.nan
        content["metrics"]["metric.retriever.norm"] = [1.0, 2.0]
        content["metrics"]["metric.retriever.steps"] = 2

    assert opened_reply(add).metrics == {**REPLY.metrics, "retriever.steps": 2.0}


def test_numbers_of_a_component_of_ones_own_are_read_where_it_was_asked_for():
    reply = Reply(metrics={"reranker.sum": 2.0, "reranker.patients": 1.0, "retriever.sum": 1.0})
    content = message(reply_content(reply, {}, "float32"))
    assert open_reply(content, {}, "float32", ("reranker",)).metrics == {"reranker.sum": 2.0}


def test_a_component_of_ones_own_comes_back_as_it_was_sent():
    state = {"reranker": {"head": np.arange(3, dtype=np.float32)}}
    request = Request("", 2, state, ("reranker", "retriever"), past_rounds={"reranker": 1})
    found = open_request(message(request_content(request)))
    assert (found.components, found.past_rounds) == (("reranker", "retriever"), {"reranker": 1})
    np.testing.assert_array_equal(found.state["reranker"]["head"], state["reranker"]["head"])


@pytest.mark.parametrize("name", ["../../site", "a.b", "A", "", "a|b", "x" * 33, "a\n"])
def test_a_component_whose_name_cannot_be_a_file_s_is_refused(name):
    for request in (Request("", state={name: STATE["generator"]}), Request("", components=(name,))):
        with pytest.raises(MessageError, match="names a component that cannot be one"):
            open_request(message(request_content(request)))


@pytest.mark.parametrize("record", ["update", "manifests", "metrics"])
def test_a_reply_without_one_of_its_records_is_refused(record):
    with pytest.raises(MessageError, match="lacks a record"):
        opened_reply(lambda content: content.pop(record))


def test_a_record_of_another_kind_is_refused():
    def swap(content):
        content["update"] = MetricRecord({"x": 1})

    with pytest.raises(MessageError, match="lacks a record"):
        opened_reply(swap)


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refusal_says_what_its_code_means(code):
    content = reply_content(Reply(refusal=code, error_id="0a1b2c3d"), {}, "float32")
    with pytest.raises(MessageError, match="error 0a1b2c3d in the site's log") as caught:
        open_reply(message(content), MANIFESTS, "float32")
    assert str(caught.value).startswith(REFUSALS[code])


def test_an_unknown_refusal_code_and_a_chatty_error_id_are_not_repeated():
    content = RecordDict({"refusal": ConfigRecord({"code": "patient-smith", "error-id": "patientSmith"})})
    with pytest.raises(MessageError) as caught:
        open_reply(message(content), MANIFESTS, "float32")
    assert str(caught.value) == "an error occurred there (error)"


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("ValueError", "ValueError"),
        ("ValueError: patient Smith", "ValueError"),
        ("patient Smith: is ill", "no reason told"),
        ("x" * 41, "no reason told"),
        ("", "no reason told"),
    ],
)
def test_of_a_failed_client_only_a_plain_name_is_told(reason, told):
    """In a deployment Flower sends a client's exception text as it is."""
    error = Message(Error(code=0, reason=reason), reply_to=message(RecordDict()))
    with pytest.raises(MessageError) as caught:
        open_reply(error, MANIFESTS, "float32")
    assert str(caught.value) == f"its client failed ({told})"


def test_a_greeting_comes_back_as_it_was_written():
    greeting = Greeting("clinic-a", "1.0", {"train_questions": 3}, {"retriever": ModelIdentity(*"abcde")})
    assert open_greeting(message(greeting_content(greeting))) == greeting


def test_a_greeting_tells_a_policy_by_all_its_rules_or_not_at_all():
    rules = {name: float(number) for number, name in enumerate(POLICY_RULES)}
    content = greeting_content(Greeting("a", "1", {}, {}, rules))
    assert set(content) == {"greeting", "counts", "policy"}
    assert open_greeting(message(content)).policy == rules
    silent = greeting_content(Greeting("a", "1", {}, {}))
    assert set(silent) == {"greeting", "counts"}
    assert open_greeting(message(silent)).policy == {}


def test_of_a_told_policy_only_the_rules_we_know_and_finite_ones_are_read():
    """A rule's name is a text that a site chooses."""
    rules = {"rounds_a_day": 3, "quiet_hours.from": 480.5}
    content = greeting_content(Greeting("a", "1", {}, {}, rules))
    content["policy"]["the patient is Smith"] = 1.0
    content["policy"]["policy.rounds_a_day"] = 1.0
    content["policy"]["minutes_a_day"] = math.nan
    content["policy"]["max_message_mb"] = math.inf
    content["policy"]["max_update_norm"] = -math.inf
    content["policy"]["min_examples"] = [1, 2]
    assert open_greeting(message(content)).policy == {"rounds_a_day": 3.0, "quiet_hours.from": 480.5}


def test_a_policy_in_a_record_of_texts_is_not_told():
    content = greeting_content(Greeting("a", "1", {}, {}))
    content["policy"] = ConfigRecord({"rounds_a_day": "the patient is Smith"})
    assert open_greeting(message(content)).policy == {}


@pytest.mark.parametrize("name", ["", "x" * (NAME_LENGTH + 1), "a\nround 3/3: all is well", "\x1b[2J"])
def test_a_name_that_would_spoil_the_log_is_refused(name):
    with pytest.raises(MessageError, match="its name is not a printable text"):
        open_greeting(message(greeting_content(Greeting(name, "1", {}, {}))))


@pytest.mark.parametrize("count", [-1, 2**29, 10**18])
def test_an_impossible_number_of_questions_is_refused_in_the_greeting(count):
    """The sum of all weights fixes the fixed point: one absurd number would spoil it for all."""
    with pytest.raises(MessageError, match="numbers of questions"):
        open_greeting(message(greeting_content(Greeting("a", "1", {"train_questions": count}, {}))))


@pytest.mark.parametrize("record", ["greeting", "counts"])
def test_a_greeting_without_one_of_its_records_is_refused(record):
    content = greeting_content(Greeting("a", "1", {}, {}))
    content.pop(record)
    with pytest.raises(MessageError, match="malformed"):
        open_greeting(message(content))


def test_arrays_of_all_records_are_counted():
    record = ArrayRecord({"x": Array(np.zeros(5, np.uint8))})
    assert array_bytes(RecordDict({"a": record, "b": record})) == 2 * len(record["x"].data)


def test_a_message_that_was_read_holds_no_bytes_even_while_the_collector_sleeps():
    """Flower's records refer to themselves: a server with a thousand sites kept the replies of many of them."""
    reply = message(reply_content(REPLY, MANIFESTS, "float32"))
    array = weakref.ref(reply.content["update"]["generator"])
    open_reply(reply, MANIFESTS, "float32")
    gc.disable()
    try:
        drop_arrays(reply)
        del reply
        assert array() is None
    finally:
        gc.enable()
    drop_arrays(Message(Error(code=0), reply_to=message(RecordDict())))
