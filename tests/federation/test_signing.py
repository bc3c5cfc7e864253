"""Signatures cover every bit of a message, and who says it to whom."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedrag.errors import SignatureError
from fedrag.federation.signing import SIGNATURE, Slip, content_digest, verified_slip, with_signature
from fedrag.security.keys import load_private_key, new_key

SLIP = Slip("request", "tiny-1", "ab" * 16, "north", "train.round", "0.1.0", 1_700_000_000.25)


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "a.key"
    new_key(path)
    return load_private_key(path)


@pytest.fixture(scope="module")
def other_key(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "b.key"
    new_key(path)
    return load_private_key(path)


def content(**changes):
    values = {"text": "a", "number": 1, "array": np.arange(4, dtype=np.float32)} | changes
    return RecordDict(
        {
            "request": ConfigRecord({"scenario": values["text"], "round": values["number"]}),
            "state": ArrayRecord({"generator": Array(values["array"])}),
            "metrics": MetricRecord({"loss": 0.5}),
        }
    )


def test_what_was_signed_is_what_is_read(key):
    assert verified_slip(with_signature(content(), SLIP, key), "request", key.public_key()) == SLIP


def test_a_signature_leaves_the_records_as_they_are(key):
    plain, signed = content(), with_signature(content(), SLIP, key)
    assert set(signed) - set(plain) == {SIGNATURE}
    assert content_digest(signed) == content_digest(plain)


def test_another_key_is_refused(key, other_key):
    with pytest.raises(SignatureError, match="another key"):
        verified_slip(with_signature(content(), SLIP, key), "request", other_key.public_key())


def test_a_request_is_no_reply(key):
    with pytest.raises(SignatureError):
        verified_slip(with_signature(content(), SLIP, key), "reply", key.public_key())


def test_no_signature_is_refused(key):
    with pytest.raises(SignatureError, match="not signed"):
        verified_slip(content(), "request", key.public_key())


CHANGES = {
    "a text": lambda c: c["request"].__setitem__("scenario", "b"),
    "a number": lambda c: c["request"].__setitem__("round", 2),
    "a number's type": lambda c: c["request"].__setitem__("round", 1.0),
    "a metric": lambda c: c["metrics"].__setitem__("loss", 0.5000001),
    "an array": lambda c: c["state"].__setitem__("generator", Array(np.array([0, 1, 2, 4], np.float32))),
    "an array's type": lambda c: c["state"].__setitem__("generator", Array(np.arange(4, dtype=np.float32).view("i4"))),
    "an array's shape": lambda c: c["state"].__setitem__("generator", Array(np.arange(4, dtype=np.float32)[None])),
    "an array's name": lambda c: c["state"].__setitem__("retriever", c["state"].pop("generator")),
    "one array more": lambda c: c["state"].__setitem__("retriever", c["state"]["generator"]),
    "one record more": lambda c: c.__setitem__("extra", ConfigRecord({})),
    "one record less": lambda c: c.pop("metrics"),
    **{
        f"the {field}": lambda c, field=field: c[SIGNATURE].__setitem__(field, "other")
        for field in ("run", "request", "site", "kind", "version")
    },
    "the time": lambda c: c[SIGNATURE].__setitem__("time", SLIP.time + 1),
    "the time's type": lambda c: c[SIGNATURE].__setitem__("time", 1_700_000_000),
    "the signature": lambda c: c[SIGNATURE].__setitem__("value", c[SIGNATURE]["value"][:-1] + b"\0"),
    "the signature's length": lambda c: c[SIGNATURE].__setitem__("value", b""),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_any_change_on_the_way_is_noticed(key, change):
    signed = with_signature(content(), SLIP, key)
    verified_slip(signed, "request", key.public_key())
    change(signed)
    with pytest.raises(SignatureError):
        verified_slip(signed, "request", key.public_key())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in ("run", "request", "site", "kind", "version") for value in (1, b"tiny-1", ["a"])),
        ("time", "today"),
        ("time", float("nan")),
        ("time", float("inf")),
        ("value", "a signature"),
        ("value", [1, 2]),
    ],
)
def test_a_signature_of_wrong_types_is_refused(key, field, value):
    signed = with_signature(content(), SLIP, key)
    signed[SIGNATURE][field] = value
    with pytest.raises(SignatureError, match="^the request is not signed$"):
        verified_slip(signed, "request", key.public_key())


@pytest.mark.parametrize("field", ["run", "request", "site", "kind", "version", "time", "value"])
def test_a_signature_that_lacks_a_field_is_refused(key, field):
    signed = with_signature(content(), SLIP, key)
    del signed[SIGNATURE][field]
    with pytest.raises(SignatureError, match="^the request is not signed$"):
        verified_slip(signed, "request", key.public_key())


def test_a_signature_under_another_kind_of_record_is_refused(key):
    signed = with_signature(content(), SLIP, key)
    signed[SIGNATURE] = MetricRecord({"time": 1.0})
    with pytest.raises(SignatureError, match="^the request is not signed$"):
        verified_slip(signed, "request", key.public_key())


VALUES = st.one_of(st.integers(-5, 5), st.floats(allow_nan=False), st.text(max_size=3), st.binary(max_size=3))
RECORDS = st.dictionaries(st.text(min_size=1, max_size=3), VALUES, max_size=3)


@given(RECORDS, RECORDS)
def test_two_contents_have_the_same_digest_only_if_they_are_the_same(one, other):
    digests = [content_digest(RecordDict({"r": ConfigRecord(values)})) for values in (one, other)]
    described = [sorted((k, type(v).__name__, repr(v)) for k, v in values.items()) for values in (one, other)]
    assert (digests[0] == digests[1]) == (described[0] == described[1])
