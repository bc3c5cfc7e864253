"""Signatures on requests and replies: who says it, to whom, in which run, and every bit of what is said.

Flower authenticates a node by a signature over the time of day alone: it covers neither path nor body. So the
coordinator signs every request and the site every reply, and each verifies before it looks at anything else.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fedrag.errors import SignatureError
from fedrag.security.keys import sign, verify

SIGNATURE = "signature"

_NAMES = ("run", "request", "site", "kind", "version")
_KEYS = {*_NAMES, "time", "value"}
_NAME = re.compile(r"[!-~]{0,128}")
"""Names of runs and sites, ids and versions: printable ASCII without blanks, so that no log or page need fear them."""


@dataclass(frozen=True, slots=True)
class Slip:
    """What a signature covers besides the content.

    Attributes:
        role: "request" or "reply": neither can be taken for the other.
        run: Name of the run.
        request: Id of the request, drawn at random; the reply repeats it.
        site: Name of the site it is for, or from.
        kind: The message type, such as "train.round".
        version: Version of fedrag that wrote it.
        time: Seconds since the epoch.
    """

    role: str
    run: str
    request: str
    site: str
    kind: str
    version: str
    time: float


def new_request_id() -> str:
    """Return 32 random hexadecimal characters."""
    return secrets.token_hex(16)


def with_signature(content: RecordDict, slip: Slip, key: EllipticCurvePrivateKey) -> RecordDict:
    """Return the same records and a signature over them."""
    signed = without_signature(content)
    signature = sign(key, _signed_bytes(signed, slip))
    told = {"run": slip.run, "request": slip.request, "site": slip.site, "kind": slip.kind}
    signed[SIGNATURE] = ConfigRecord({**told, "version": slip.version, "time": slip.time, "value": signature})
    return signed


def without_signature(content: RecordDict) -> RecordDict:
    """Return the same records without the signature."""
    return RecordDict({name: content[name] for name in content if name != SIGNATURE})


def verified_slip(content: RecordDict, role: str, key: EllipticCurvePublicKey) -> Slip:
    """Return what a valid signature says.

    Raises:
        SignatureError: There is none, it is another's, something was changed, or it holds more than is signed.
    """
    try:
        record = content.config_records[SIGNATURE]
        texts = {name: record[name] for name in _NAMES}
        time, value = record["time"], record["value"]
    except KeyError:
        raise SignatureError(f"the {role} is not signed") from None
    if not all(isinstance(text, str) for text in texts.values()):
        raise SignatureError(f"the {role} is not signed")
    if not isinstance(time, float) or not math.isfinite(time) or not isinstance(value, bytes):
        raise SignatureError(f"the {role} is not signed")
    if set(record) != _KEYS:
        raise SignatureError(f"the {role} holds more than a signature in its place")
    if wrong := next((name for name, text in texts.items() if not _NAME.fullmatch(str(text))), None):
        raise SignatureError(f"the {role} is signed, but its {wrong} is no name")
    slip = Slip(role=role, time=time, **{name: str(text) for name, text in texts.items()})
    if not verify(key, value, _signed_bytes(content, slip)):
        raise SignatureError(f"the {role} is signed with another key, or was changed on its way")
    return slip


def request_id(message: Message) -> str:
    """Return the id of the request that a signed message is, or answers."""
    return str(message.content.config_records[SIGNATURE]["request"])


def _signed_bytes(content: RecordDict, slip: Slip) -> bytes:
    fields = ("fedrag", slip.role, slip.run, slip.request, slip.site, slip.kind, slip.version, slip.time.hex())
    return _joined([*(field.encode() for field in fields), content_digest(content)])


def content_digest(content: RecordDict) -> bytes:
    """Return the sha256 of all records but the signature: names, types, values, and every byte of the arrays."""
    parts: list[bytes] = []
    for name in sorted(content):
        record = content[name]
        if name == SIGNATURE:
            continue
        parts += [type(record).__name__.encode(), name.encode(), str(len(record)).encode()]
        if isinstance(record, ArrayRecord):
            for key, array in sorted(record.items()):
                head = f"{key}\0{array.dtype}\0{list(array.shape)}\0{array.stype}".encode()
                parts += [head, hashlib.sha256(array.data).digest()]
        else:
            for key, value in sorted(record.items()):
                parts += [key.encode(), _value_bytes(value)]
    return hashlib.sha256(_joined(parts)).digest()


def _value_bytes(value: object) -> bytes:
    """Return a value's type and bits, so that 1, 1.0, True and "1" are four things."""
    if isinstance(value, list):
        return _joined([b"list", *(_value_bytes(item) for item in value)])
    if isinstance(value, float):
        return b"float" + value.hex().encode()
    if isinstance(value, bytes):
        return b"bytes" + value
    return type(value).__name__.encode() + b":" + str(value).encode()


def _joined(parts: Iterable[bytes]) -> bytes:
    """Join byte strings so that no other sequence gives the same bytes."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)
