"""How large a reply may be: the server says so in the group of its request, for all that a reply passes on its way."""

from __future__ import annotations

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from fedrag.federation.codec import byte_count, state_wire

SHARE = 2**10  # bytes a site: a share and a name
SPARE = 2**16  # bytes beside the arrays: numbers, hashes, a signature


def reply_limit(request: RecordDict) -> int:
    """Return the most bytes that the reply to a request may have: an update is no larger than the state it changes.

    A masked one has an element of a ring for each element of the state.
    """
    asked = request.config_records.get("request", ConfigRecord())
    state = request.array_records.get("state", ArrayRecord())
    components = _list(asked.get("components", []))
    due = sum(len(state[str(name)].data) for name in components if name in state)
    if terms := request.config_records.get("secure"):
        # An element of a ring has up to 8 bytes; each other site is named, and gets a sealed share.
        due = due * 8 // byte_count(1, state_wire(str(asked["wire"]))) + SHARE * len(_list(terms["names"]))
    if asked_to_reveal := request.config_records.get("reveal"):
        due += SHARE * len(_list(asked_to_reveal["survivors"]))
    return due + due // 256 + SPARE


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def with_limit(group: str, limit: int) -> str:
    """Return the group of a request with the limit of its reply.

    >>> with_limit("3", 70000)
    '3/70000'
    """
    return f"{group}/{limit}"


def limit_of(group: str) -> int:
    """Return the limit that a group tells.

    >>> limit_of("3/70000"), limit_of("3")
    (70000, 65536)
    """
    digits = group.partition("/")[2]
    return int(digits) if digits.isdecimal() else SPARE


def without_limit(group: str) -> str:
    """Return the group itself.

    >>> without_limit("3/70000"), without_limit("delivery")
    ('3', 'delivery')
    """
    return group.partition("/")[0]
