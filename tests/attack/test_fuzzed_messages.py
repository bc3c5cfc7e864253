"""Thousands of changed messages through every reader: the declared errors and no others, and no memory to speak of."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from mutations import MOST_BESIDE, mutated, mutated_bytes, numpy_file_of

from fedrag.config.scenario import Config
from fedrag.errors import FedragError, MessageError, SignatureError
from fedrag.federation.codec import WIRES, byte_count, decode
from fedrag.federation.greeting import Greeting, greeting_content, open_greeting
from fedrag.federation.messages import (
    GREET,
    TRAIN,
    Reply,
    Request,
    array_bytes,
    open_reply,
    open_request,
    reply_content,
    request_content,
)
from fedrag.federation.signing import Slip, verified_slip, with_signature
from fedrag.federation.update import Manifest, flatten, manifest_of
from fedrag.types import ModelIdentity

pytestmark = pytest.mark.slow

COUNT = 20_000
"""Messages of each kind."""

STATE = {
    "generator": {"q.lora_B.weight": np.arange(6, dtype=np.float32).reshape(3, 2), "a": np.ones(1, np.float32)},
    "retriever": {"w": np.array([1.5, -2.0], np.float32)},
}
MANIFESTS = {component: manifest_of(tensors) for component, tensors in STATE.items()}
SCENARIO = Config.from_dict({"name": "fuzzed", "data": {"sites": "sites"}}).to_toml()
SLIP = Slip("reply", "run-1", "0" * 32, "north", TRAIN, "0.2.0", 1.0)
KEY = ec.generate_private_key(ec.SECP384R1())

REQUEST = request_content(Request(SCENARIO, 3, STATE, ("generator",), {"generator": 2, "retriever": 1}, 12.5))
REPLY = reply_content(
    Reply(
        {component: flatten(tensors, MANIFESTS[component]) for component, tensors in STATE.items()},
        {"generator": 3, "retriever": 4},
        {"seconds": 1.5, "generator.loss": 0.25, "diagnosis.questions": 4.0},
    ),
    MANIFESTS,
    "float32",
)
GREETING = greeting_content(
    Greeting("north", "0.2.0", {"train_questions": 4}, {"generator": ModelIdentity("a" * 64)}, {"min_examples": 1.0})
)
REFUSAL = reply_content(Reply(refusal="bad-data", error_id="0" * 8), {}, "float32")


@pytest.fixture(autouse=True)
def _sender() -> None:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 0, 1, 1


def read_request(message: Message) -> None:
    Config.from_toml(open_request(message).scenario)


def read_signed(message: Message) -> None:
    verified_slip(message.content, "reply", KEY.public_key())


def read_reply(message: Message) -> None:
    open_reply(message, MANIFESTS, "float32")


READERS: dict[str, tuple[Callable[[Message], object], RecordDict, str]] = {
    "request": (read_request, REQUEST, TRAIN),
    "reply": (read_reply, REPLY, TRAIN),
    "refusal": (read_reply, REFUSAL, TRAIN),
    "greeting": (open_greeting, GREETING, GREET),
    "signature": (read_signed, with_signature(REPLY, SLIP, KEY), TRAIN),
}


def changed_messages(content: RecordDict, kind: str, count: int) -> Iterator[Message]:
    """Yield changed messages: half in their records, half byte by byte."""
    chance = random.Random(kind)
    given = 0
    while given < count:
        message = Message(content, 2, kind)
        found = list(mutated_bytes(message, chance)) if given % 2 else [Message(mutated(content, chance), 2, kind)]
        given += len(found)
        yield from found


@pytest.mark.parametrize("name", READERS)
def test_a_changed_message_is_read_or_refused_with_a_declared_error(name: str) -> None:
    read, content, kind = READERS[name]
    fewest, most = (COUNT, COUNT) if content is REFUSAL else (COUNT // 10, COUNT - 1)
    refused = 0
    for message in changed_messages(content, kind, COUNT):
        try:
            read(message)
        except FedragError:
            refused += 1
    assert fewest <= refused <= most, "the changes change nothing, or nothing is read"


@pytest.mark.parametrize("name", READERS)
def test_reading_a_changed_message_takes_no_memory_beyond_its_own_size(name: str) -> None:
    read, content, kind = READERS[name]
    tracemalloc.start()
    try:
        for message in changed_messages(content, kind, COUNT // 10):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            with suppress(FedragError):
                read(message)
            _, peak = tracemalloc.get_traced_memory()
            size = array_bytes(message.content) if message.has_content() else 0
            assert peak - before < 2 * size + MOST_BESIDE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("read", ["request", "reply"])
@pytest.mark.parametrize("shape", [(2**40,), (2**20, 2**20), (2**31,)])
def test_an_array_that_announces_more_than_it_holds_is_refused_before_memory_is_asked_for(
    read: str, shape: tuple[int, ...]
) -> None:
    reader, content, kind = READERS[read]
    false = Array("uint8", shape, "numpy.ndarray", numpy_file_of(shape, "|u1"))
    record = {"request": "state", "reply": "update"}[read]
    lying = RecordDict(dict(content))
    lying[record] = ArrayRecord({"generator": false, "retriever": content.array_records[record]["retriever"]})
    tracemalloc.start()
    try:
        with pytest.raises(MessageError):
            reader(Message(lying, 2, kind))
        assert tracemalloc.get_traced_memory()[1] < MOST_BESIDE
    finally:
        tracemalloc.stop()


def test_random_bytes_are_numbers_or_refused() -> None:
    chance = np.random.default_rng(0)
    for _ in range(COUNT):
        wire, size = WIRES[chance.integers(len(WIRES))], int(chance.integers(0, 300))
        wrong = int(chance.integers(0, 2)) * int(chance.integers(-3, 4))
        raw = chance.integers(0, 256, max(0, byte_count(size, wire) + wrong), dtype=np.uint8)
        try:
            assert decode(raw, wire, size).shape == (size,)
        except MessageError:
            assert wrong or wire == "int8"


def test_random_manifests_are_read_or_refused() -> None:
    chance = random.Random(0)
    parts = ("[", "]", '"a"', '"b"', ",", "1", "-1", "2.5", "null", "{", "}", ":", "1" * 400, "true", " ")
    read = 0
    for _ in range(COUNT):
        valid = list(MANIFESTS["generator"].to_json())
        for _ in range(chance.randint(0, 3)):
            valid[chance.randrange(len(valid))] = chance.choice(parts)
        try:
            Manifest.from_json("".join(valid))
            read += 1
        except MessageError:
            pass
    assert 100 < read < COUNT


def test_a_message_without_a_signature_says_so() -> None:
    with pytest.raises(SignatureError):
        read_signed(Message(REPLY, 2, TRAIN))
