"""What server and sites say to each other in a secure sum: every record and key of it, and nowhere else.

A request to train or to validate is the plain one and a record of the terms: run, attempt, roster, threshold. Its reply
is masked arrays and sealed shares. The second message asks each survivor to reveal what opens the sum.

What stays in the clear, and why:
- who takes part, who answered and when, and how many bytes: whoever carries messages sees that;
- a refusal code, as without masks: a site that gives no vector hides none;
- the greeting: name, version, identities of base models, and that there are questions, as 1 or 0.
All else that a plain reply tells is in the sum: the update, the number of examples, losses, steps, tokens, norms,
temperatures, and sums and counts of validation. The seconds that a site worked are not told at all, and neither is the
diagnosis of wrong answers, whose counts are each site's own.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictBytes

from fedrag.errors import MessageError
from fedrag.federation.codec import unpacked
from fedrag.federation.refusal_codes import require_content
from fedrag.federation.signing import content_digest
from fedrag.secure_sum.fixed_point import Layout, Ring
from fedrag.secure_sum.masking import Masked, Revealed, RevealRequest
from fedrag.secure_sum.roster import Member, Roster, roster_of
from fedrag.secure_sum.sum_terms import Terms, round_context

REVEAL = "query.reveal"
TERMS = "secure"
MASKED = "masked"
_SEALED, _REVEAL, _REVEALED = "sealed", "reveal", "revealed"

Value = TypeVar("Value", str, bytes)


def with_terms(content: RecordDict, terms: Terms) -> RecordDict:
    """Return a request with the terms of its sum."""
    members = terms.roster.members
    record = ConfigRecord(
        {
            "run": terms.run,
            "attempt": terms.attempt,
            "threshold": terms.threshold,
            "names": [member.name for member in members],
            "keys": [member.key for member in members],
            "signatures": [member.signature for member in members],
        }
    )
    return RecordDict({**{name: content[name] for name in content}, TERMS: record})


def terms_of(content: RecordDict) -> Terms | None:
    """Return the terms of a request; None where its replies are not to be masked.

    Raises:
        MessageError: They are malformed.
    """
    if TERMS not in content:
        return None
    try:
        record = content.config_records[TERMS]
        keys, signatures = (_list(record, name, bytes) for name in ("keys", "signatures"))
        members = [Member(*told) for told in zip(_list(record, "names", str), keys, signatures, strict=True)]
        attempt, threshold = record["attempt"], record["threshold"]
        if not isinstance(attempt, int) or not isinstance(threshold, int) or not 0 <= attempt < 2**32:
            raise MessageError("the terms of a secure sum are malformed")
        if not 1 <= threshold <= len(members):
            raise MessageError("the threshold of a secure sum is not within 1 and its number of sites")
        return Terms(str(record["run"]), attempt, roster_of(members), threshold)
    except (KeyError, ValueError, TypeError) as error:
        raise MessageError(f"the terms of a secure sum are malformed: {type(error).__name__}") from error


def context_of(content: RecordDict, kind: str, terms: Terms) -> bytes:
    """Return the context of the sum that a request asks for: it binds every bit of the request."""
    return round_context(terms, kind, content_digest(content))


def masked_content(masked: Masked, terms: Terms, name: str) -> RecordDict:
    """Write a masked reply of a site."""
    arrays = {part: Array(np.ascontiguousarray(ring).view(np.uint8)) for part, ring in masked.vector.items()}
    sealed = [masked.sealed[peer] for peer in terms.roster.names if peer != name]
    record = ConfigRecord({"shares": sealed, "commitment": masked.commitment})
    return RecordDict({MASKED: ArrayRecord(arrays), _SEALED: record})


def open_masked(message: Message, layout: Layout, roster: Roster, name: str) -> Masked:
    """Read a masked reply at the server.

    Raises:
        MessageError: The site refused or failed, or the reply is not what was asked for.
    """
    require_content(message)
    try:
        arrays = message.content.array_records[MASKED]
        sealed = message.content.config_records[_SEALED]
        shares, commitment = _list(sealed, "shares", bytes), sealed["commitment"]
    except (KeyError, TypeError):
        raise MessageError("its reply is not masked") from None
    if set(arrays) != {part.name for part in layout}:
        raise MessageError("its masked reply holds other parts than were asked for")
    vector: dict[str, Ring] = {}
    for part in layout:
        raw = unpacked(arrays[part.name].data)
        if raw.size != part.size * part.dtype.itemsize:
            raise MessageError(f"its masked {part.name} has another size than the request")
        vector[part.name] = np.frombuffer(raw.tobytes(), dtype=part.dtype)
    others = [peer for peer in roster.names if peer != name]
    if len(shares) != len(others):
        raise MessageError("its reply does not hold a sealed share for each other site")
    if not isinstance(commitment, bytes):
        raise MessageError("its reply does not hold a commitment to its mask")
    return Masked(vector, dict(zip(others, shares, strict=True)), commitment)


def reveal_content(request: RevealRequest) -> RecordDict:
    """Write what a survivor is asked."""
    record = ConfigRecord(
        {
            "context": request.context,
            "survivors": list(request.survivors),
            "senders": list(request.sealed),
            "sealed": list(request.sealed.values()),
        }
    )
    return RecordDict({_REVEAL: record})


def open_reveal(content: RecordDict) -> RevealRequest:
    """Read at a site what it is to reveal.

    Raises:
        MessageError: It is malformed.
    """
    try:
        record = content.config_records[_REVEAL]
        survivors = tuple(_list(record, "survivors", str))
        shares = dict(zip(_list(record, "senders", str), _list(record, "sealed", bytes), strict=True))
        context = record["context"]
        if not isinstance(context, bytes) or len(set(survivors)) < len(survivors):
            raise MessageError("a request to reveal is malformed")
        return RevealRequest(context, survivors, shares)
    except (KeyError, ValueError, TypeError) as error:
        raise MessageError(f"a request to reveal is malformed: {type(error).__name__}") from error


def revealed_content(revealed: Revealed) -> RecordDict:
    """Write what a survivor reveals."""
    record = ConfigRecord(
        {
            "survivors": list(revealed.shares),
            "shares": list(revealed.shares.values()),
            "gone": list(revealed.seeds),
            "seeds": list(revealed.seeds.values()),
        }
    )
    return RecordDict({_REVEALED: record})


def open_revealed(message: Message) -> Revealed:
    """Read at the server what a survivor revealed.

    Raises:
        MessageError: The site refused or failed, or the reply is malformed.
    """
    require_content(message)
    try:
        record = message.content.config_records[_REVEALED]
        return Revealed(
            dict(zip(_list(record, "survivors", str), _list(record, "shares", bytes), strict=True)),
            dict(zip(_list(record, "gone", str), _list(record, "seeds", bytes), strict=True)),
        )
    except (KeyError, ValueError, TypeError):
        raise MessageError("what it revealed is malformed") from None


def content_to_bytes(content: RecordDict) -> bytes:
    """Write a content, for a file."""
    return bytes(recorddict_to_proto(content).SerializeToString())


def content_from_bytes(kept: bytes) -> RecordDict:
    """Read what `content_to_bytes` wrote."""
    return recorddict_from_proto(RecordDictBytes.FromString(kept))


def _list(record: ConfigRecord, key: str, kind: type[Value]) -> list[Value]:
    """Return a list of texts or of bytes, and no other."""
    found = record[key]
    if not isinstance(found, list):
        raise TypeError(key)
    values = [value for value in found if isinstance(value, kind)]
    if len(values) < len(found):
        raise TypeError(key)
    return values
