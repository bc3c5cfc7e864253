"""Messages as someone would write them who means harm: valid ones with one or a few things changed."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

Chance = random.Random

MOST_BESIDE = 400_000
"""Bytes that Python's own objects may take beside twice a message's size, however small the message is."""

TEXTS = (
    *("", "\0", "../../etc/passwd", "a" * 5000, "\x1b]0;x\x07", "\u202e"),
    *("[" * 4000, "nan", "1e999", "-1", "é" * 300),
)
NUMBERS = (0, -1, 1, 2**31, 2**62, -(2**63), float("nan"), float("inf"), -float("inf"), 1e308, 5e-324, True)
SHAPES = ((), (0,), (-1,), (2**40,), (2**20, 2**20), (3, 3))
DTYPES = ("uint8", "float64", "object", "<U9", "", "\0")


def mutated(content: RecordDict, chance: Chance, changes: int = 3) -> RecordDict:
    """Return a copy of some records with up to `changes` things changed."""
    copy = _copied(content)
    for _ in range(chance.randint(1, changes)):
        with suppress(TypeError, ValueError):  # Flower's own records do not take everything
            chance.choice(_CHANGES)(copy, chance)
    return copy


def mutated_bytes(message: Message, chance: Chance) -> Iterator[Message]:
    """Change the serialised message byte by byte; yield it where it can still be put together."""
    raw = bytearray(message_to_proto(message).SerializeToString())
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(raw))
        match chance.randrange(4):
            case 0:
                raw[place] = chance.randrange(256)
            case 1:
                raw[place] ^= 1 << chance.randrange(8)
            case 2:
                del raw[place : place + chance.randint(1, 40)]
            case _:
                raw[place:place] = chance.randbytes(chance.randint(1, 40))
        if not raw:
            return
    try:
        found = message_from_proto(ProtoMessage.FromString(bytes(raw)))
    except Exception:  # noqa: BLE001 - that no message comes of it is the transport's business, tested with real ones
        return
    yield found


def _copied(content: RecordDict) -> RecordDict:
    copy = RecordDict()
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            copy[name] = ArrayRecord({key: _array_like(array) for key, array in record.items()})
        else:
            copy[name] = type(record)(dict(record))
    return copy


def _array_like(array: Array, **changes: Any) -> Array:
    parts = {"dtype": array.dtype, "shape": tuple(array.shape), "stype": array.stype, "data": array.data}
    return Array(**{**parts, **changes})


def _of(content: RecordDict, kind: type, chance: Chance) -> Any:
    found = [record for record in content.values() if isinstance(record, kind) and len(record)]
    return chance.choice(found) if found else None


def _drop_a_record(content: RecordDict, chance: Chance) -> None:
    if content:
        del content[chance.choice(list(content))]


def _swap_records(content: RecordDict, chance: Chance) -> None:
    if content:
        first, second = chance.choice(list(content)), chance.choice(list(content))
        content[first], content[second] = content[second], content[first]


def _drop_a_key(content: RecordDict, chance: Chance) -> None:
    record = chance.choice(list(content.values())) if content else None
    if record:
        del record[chance.choice(list(record))]


def _rename_a_key(content: RecordDict, chance: Chance) -> None:
    record = chance.choice(list(content.values())) if content else None
    if record:
        key = chance.choice(list(record))
        value = record[key]
        del record[key]
        record[chance.choice(TEXTS) + chance.choice(("", key))] = value


def _change_a_setting(content: RecordDict, chance: Chance) -> None:
    record = _of(content, ConfigRecord, chance)
    if record is not None:
        text = chance.choice(TEXTS)
        values = (text, [text, text], text.encode(), chance.choice(NUMBERS), [1, 2], [], [0.5], [b"x"])
        record[chance.choice(list(record))] = chance.choice(values)


def _change_a_text(content: RecordDict, chance: Chance) -> None:
    record = _of(content, ConfigRecord, chance)
    key = chance.choice(list(record)) if record is not None else ""
    if record is not None and isinstance(record[key], str) and record[key]:
        text = list(record[key])
        text[chance.randrange(len(text))] = chance.choice('[]{}",:0123456789-e\n=#\0')
        record[key] = "".join(text)


def _change_a_number(content: RecordDict, chance: Chance) -> None:
    record = _of(content, MetricRecord, chance)
    if record is not None:
        record[chance.choice(list(record))] = chance.choice((*NUMBERS[:-1], [1, 2], [0.5]))


def _change_an_array(content: RecordDict, chance: Chance) -> None:
    record = _of(content, ArrayRecord, chance)
    if record is None:
        return
    key = chance.choice(list(record))
    array = record[key]
    changes: tuple[Callable[[], Array], ...] = (
        lambda: _array_like(array, data=array.data[: chance.randrange(len(array.data) + 1)]),
        lambda: _array_like(array, data=array.data + chance.randbytes(chance.randint(1, 400))),
        lambda: _array_like(array, data=_flipped(array.data, chance)),
        lambda: _array_like(array, data=chance.randbytes(chance.randint(0, 400))),
        lambda: _array_like(array, data=numpy_file_of(chance.choice(SHAPES), chance.choice(("|u1", "<f8", "|O", "?")))),
        lambda: _array_like(array, dtype=chance.choice(DTYPES)),
        lambda: _array_like(array, shape=chance.choice(SHAPES)),
        lambda: _array_like(array, stype=chance.choice(("pickle", "", "numpy.ndarray\0"))),
        lambda: Array(np.zeros(chance.randrange(60), chance.choice((np.uint8, np.float32, np.complex128)))),
    )
    record[key] = chance.choice(changes)()


def _flipped(data: bytes, chance: Chance) -> bytes:
    raw = bytearray(data)
    if raw:
        raw[chance.randrange(min(len(raw), 160))] = chance.randrange(256)  # numpy's header is in front
    return bytes(raw)


def numpy_file_of(shape: tuple[int, ...], dtype: str) -> bytes:
    """Return the head of a numpy file that announces an array, however large, and holds none."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


_CHANGES = (
    *(_drop_a_record, _swap_records, _drop_a_key, _rename_a_key, _change_a_setting),
    *(_change_a_text, _change_a_number, _change_an_array, _change_an_array),
)
