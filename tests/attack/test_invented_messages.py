"""A minute of what hypothesis invents for codec, manifest, greeting and signature: read, or refused as declared."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import MOST_BESIDE

from fedrag.errors import MessageError, SignatureError
from fedrag.federation.codec import WIRES, byte_count, decode
from fedrag.federation.greeting import POLICY_RULES, QUESTION_COUNTS, open_greeting
from fedrag.federation.messages import GREET
from fedrag.federation.signing import SIGNATURE, Slip, verified_slip, with_signature
from fedrag.federation.update import Manifest
from fedrag.types import COMPONENTS, IDENTITY_PARTS

pytestmark = pytest.mark.slow

quarter_of_a_minute = settings(max_examples=5_000, suppress_health_check=list(HealthCheck))
"""Each test, on one core."""


KEY = ec.generate_private_key(ec.SECP384R1())
SLIP = Slip("reply", "run-1", "0" * 32, "north", GREET, "0.2.0", 1.0)
SIGNED = with_signature(RecordDict({"counts": MetricRecord({"train_questions": 4})}), SLIP, KEY)

INTEGERS = st.integers(-(2**63), 2**63 - 1)
NUMBERS = INTEGERS | st.floats()
TEXTS = st.text() | st.sampled_from(["north", "0.2.0", "a" * 64, "\x1b]0;x\x07", "\u202e", "nan", "1e999"])
TEXTS |= st.just("9").map(lambda digit: digit * 5_000)  # more than Python reads as a number
LISTS = st.lists(INTEGERS) | st.lists(st.floats()) | st.lists(TEXTS) | st.lists(st.binary())
VALUES = NUMBERS | TEXTS | st.booleans() | st.binary() | LISTS
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda part: st.lists(part) | st.dictionaries(TEXTS, part),
    max_leaves=8,
)


def keys(*known: str) -> st.SearchStrategy[str]:
    """Return the names that are read, and others."""
    return st.sampled_from(known) | TEXTS


def records(names: st.SearchStrategy[str], values: st.SearchStrategy[Any], kind: type) -> st.SearchStrategy[Any]:
    """Return records of a kind with any values, or with none."""
    return st.dictionaries(names, values, max_size=8).map(kind)


@pytest.fixture(autouse=True)
def _sender() -> None:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 0, 1, 1


def memory_of(read: Callable[[], object]) -> int:
    """Return the most bytes that reading took at a time; a declared error is a way to end."""
    tracemalloc.start()
    try:
        with suppress(MessageError, SignatureError):
            read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@quarter_of_a_minute
@given(st.binary(max_size=600), st.sampled_from(WIRES), st.integers(0, 2**45), st.booleans())
def test_bytes_are_so_many_numbers_or_refused(content: bytes, wire: Any, size: int, fits: bool) -> None:
    raw = np.frombuffer(content, np.uint8)
    size = size % 300 if fits else size

    def read() -> None:
        assert decode(raw, wire, size).shape == (size,)
        assert raw.size == byte_count(size, wire)

    assert memory_of(read) < 2 * 4 * raw.size + MOST_BESIDE


TENSORS = st.tuples(TEXTS, st.lists(st.integers(0, 2**40) | NUMBERS, max_size=4)).map(list)


@quarter_of_a_minute
@given(st.lists(TENSORS, max_size=6) | JSON | st.lists(JSON))
def test_a_text_is_a_manifest_or_refused(told: Any) -> None:
    text = json.dumps(told)

    def read() -> None:
        assert json.loads(Manifest.from_json(text).to_json()) == told

    assert memory_of(read) < 2 * len(text.encode()) + MOST_BESIDE


HASHES = [f"{part}.{component}" for part in IDENTITY_PARTS for component in COMPONENTS]
GREETINGS = st.fixed_dictionaries(
    {},
    optional={
        "greeting": records(keys("name", "version", *HASHES), VALUES, ConfigRecord),
        "counts": records(keys(*QUESTION_COUNTS), NUMBERS | st.lists(INTEGERS) | st.lists(st.floats()), MetricRecord),
        "policy": records(keys(*POLICY_RULES), NUMBERS, MetricRecord),
        "agreement": records(keys("key", "signature"), VALUES, ConfigRecord),
    },
).map(RecordDict)


@quarter_of_a_minute
@given(GREETINGS)
def test_records_are_a_greeting_or_refused(content: RecordDict) -> None:
    message = Message(content, 2, GREET)

    def read() -> None:
        greeting = open_greeting(message)
        assert greeting.name.isprintable()
        assert all(count >= 0 for count in greeting.counts.values())

    assert memory_of(read) < MOST_BESIDE


PARTS = sorted(SIGNED.config_records[SIGNATURE])


@quarter_of_a_minute
@given(st.dictionaries(keys(*PARTS), VALUES, max_size=4), st.sets(st.sampled_from(PARTS), max_size=2))
def test_a_signature_with_anything_changed_is_refused(changed: dict[str, Any], removed: set[str]) -> None:
    valid = dict(SIGNED.config_records[SIGNATURE])
    told = {key: value for key, value in (valid | changed).items() if key not in removed}
    content = RecordDict({**{name: SIGNED[name] for name in SIGNED}, SIGNATURE: ConfigRecord(told)})

    def read() -> None:
        assert verified_slip(content, SLIP.role, KEY.public_key()) == SLIP
        assert told == valid

    assert memory_of(read) < MOST_BESIDE
