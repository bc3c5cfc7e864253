"""Messages as raw parts: an honest one is read, any other raises MessageError, and nothing grows past its limit."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrag.errors import MessageError
from fedrag.federation.arriving import SPOILT, TOO_LARGE, UNREADABLE, ArrivingMessage

Parts = dict[str, bytes]


def honest(values: int = 1000) -> tuple[str, Parts]:
    """Return the id of a message and its parts."""
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 0, 1
    records = {
        "update": ArrayRecord({"generator": Array(np.arange(values, dtype=np.uint8))}),
        "told": ConfigRecord({"site": "north"}),
        "metrics": MetricRecord({"loss": 0.5}),
    }
    message = Message(RecordDict(records), 7, "train.round", ttl=60.0)
    parts = {object_id: item.deflate() for object_id, item in get_all_nested_objects(message).items()}
    return message.object_id, parts


def put(parts: Parts, kind: str, below: list[str], body: bytes) -> str:
    """Add a part with its right hash and return its id."""
    content = f"{kind} {','.join(below)} {len(body)}".encode() + b"\0" + body
    object_id = hashlib.sha256(content).hexdigest()
    parts[object_id] = content
    return object_id


def read(message_id: str, parts: Parts, limit: int = 10_000) -> Message:
    arriving = ArrivingMessage(message_id, limit)
    arriving.fetch(parts.__getitem__)
    return arriving.message()


def test_an_honest_message_is_read():
    message_id, parts = honest()
    message = read(message_id, parts)
    assert message.metadata.message_id == message_id
    assert message.content["told"] == ConfigRecord({"site": "north"})
    assert message.content["update"]["generator"].numpy().tolist() == np.arange(1000, dtype=np.uint8).tolist()


def test_a_message_that_comes_in_pieces_is_fetched_piece_by_piece():
    message_id, parts = honest()
    arriving, asked = ArrivingMessage(message_id, 10_000), []

    def pull(object_id: str) -> bytes:
        asked.append(object_id)
        if asked.count(object_id) == 1:
            raise LookupError
        return parts[object_id]

    for _ in parts:
        with pytest.raises(LookupError):
            arriving.fetch(pull)
    arriving.fetch(pull)
    assert len(asked) == 2 * len(parts)
    assert arriving.message().content["metrics"]["loss"] == 0.5


def test_a_message_above_its_limit_is_left_before_its_arrays_come():
    message_id, parts = honest(100_000)
    asked = []
    with pytest.raises(MessageError, match=TOO_LARGE):
        ArrivingMessage(message_id, 10_000).fetch(lambda name: asked.append(name) or parts[name])
    assert all(len(parts[name]) < 1000 for name in asked)


def test_a_chunk_that_stands_in_an_array_a_thousand_times_counts_as_often():
    """Of 70 kB came 60 MB."""
    parts: Parts = {}
    chunk = put(parts, "ArrayChunk", [], bytes(60_000))
    told = {"dtype": "uint8", "shape": [1], "stype": "numpy.ndarray", "arraychunk_ids": [0] * 1000}
    array = put(parts, "Array", [chunk], json.dumps(told).encode())
    record = put(parts, "ArrayRecord", [array], b"{}")
    head = put(parts, "Message", [put(parts, "RecordDict", [record], b"{}")], b"")
    with pytest.raises(MessageError, match=TOO_LARGE):
        read(head, parts, 1_000_000)


def test_a_part_stands_only_where_a_message_has_such_a_part():
    parts: Parts = {}
    inner = put(parts, "RecordDict", [], b"{}")
    for _ in range(5000):  # Flower itself would go as deep as it is told
        inner = put(parts, "RecordDict", [inner], b"{}")
    with pytest.raises(MessageError, match=UNREADABLE):
        read(put(parts, "Message", [inner], b""), parts)


def test_a_head_that_was_spoilt_at_the_gate_says_that_the_message_was_too_large():
    message_id, _ = honest()
    with pytest.raises(MessageError, match=TOO_LARGE):
        read(message_id, {message_id: SPOILT})


@settings(max_examples=300)
@given(st.integers(0, 9), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=8))
def test_foreign_bytes_in_any_part_are_a_message_error_or_a_message(number, changes):
    """The hashes are right all the way up: only what the bytes say is wrong."""
    message_id, parts = honest(40)
    name = list(parts)[number % len(parts)]
    content = bytearray(parts[name])
    for place, value in changes:
        content[place % len(content)] = value
    renamed, parts[name] = {name: hashlib.sha256(content).hexdigest()}, bytes(content)
    for _ in range(5):  # parents name their children, whose hashes have changed
        for old, part in list(parts.items()):
            for before, after in renamed.items():
                part = part.replace(before.encode(), after.encode())
            parts[old], renamed[old] = part, hashlib.sha256(part).hexdigest()
    named = {renamed[old]: part for old, part in parts.items()}
    with suppress(MessageError, KeyError):  # KeyError: a part that nobody has
        assert isinstance(read(renamed[message_id], named), Message)
