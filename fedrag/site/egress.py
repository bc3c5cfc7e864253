"""The log of everything that leaves a site: one chained line per reply, on disk before the reply is sent."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flwr.app import ArrayRecord, RecordDict

from fedrag.federation.messages import DELIVER, GREET, TRAIN, VALIDATE, array_bytes
from fedrag.federation.secure_messages import REVEAL
from fedrag.federation.signing import Slip
from fedrag.security.chained_log import ChainedLog, raw_lines

EGRESS_FILE = "egress.jsonl"

KEYS = ("time", "run", "round", "kind", "arrays", "bytes", "numbers", "texts", "request", "seconds")

KINDS = {GREET: "greet", TRAIN: "train", VALIDATE: "validate", DELIVER: "deliver", REVEAL: "reveal"}

SURVIVORS, SUM_OF = "survivors", "sum of"
"""Texts of the line of a reveal: a hash of the sites whose sum the site helped to open, the same at all, and names."""

HASHED = ("sealed", "revealed")
"""Records of which the log holds a hash: their bytes, kept here, would open masks to whoever reads the log."""


@dataclass(frozen=True, slots=True)
class EgressLog:
    """The log of one site; only its owner can read the file.

    Attributes:
        path: The file.
    """

    path: Path

    def write(
        self,
        content: RecordDict,
        slip: Slip,
        group: str,
        seconds: float,
        again: bool = False,
        asked: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Log a reply; when this returns, the line is on disk and the reply may be sent.

        Args:
            content: The reply, not yet signed.
            slip: What its signature will cover; the line has the slip's time.
            group: Group of the message that it answers: the number of the round, in a round.
            seconds: Time that the site worked on it.
            again: Whether the reply was logged before and leaves once more, because it may have been lost.
            asked: What of the request belongs into the line: texts by name.

        Raises:
            StorageError: The line cannot be written; the reply must not be sent.
        """
        kind = "refusal" if "refusal" in content.config_records else KINDS.get(slip.kind, slip.kind)
        head = {
            "time": datetime.fromtimestamp(slip.time).astimezone().isoformat(timespec="seconds"),
            "run": slip.run,
            "round": int(group) if re.fullmatch("[0-9]{1,9}", group) else 0,
            "kind": f"{kind} again" if again else kind,
        }
        told = describe(content)
        told["texts"] |= asked
        line = head | told | {"request": slip.request, "seconds": round(seconds, 3)}
        ChainedLog(self.path).append(line)


def describe(content: RecordDict) -> dict[str, Any]:
    """Return what a reply holds: the identity of each array, and everything else in clear.

    Returns:
        `arrays`, `bytes` (of all arrays), `numbers` and `texts`; names are `record.key`.
    """
    arrays: list[dict[str, Any]] = []
    numbers: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    for record_name, record in content.items():
        if isinstance(record, ArrayRecord):
            arrays += [
                {
                    "name": f"{record_name}.{key}",
                    "dtype": array.dtype,
                    "shape": list(array.shape),
                    "bytes": len(array.data),
                    "sha256": hashlib.sha256(array.data).hexdigest(),
                }
                for key, array in record.items()
            ]
            continue
        if record_name in HASHED:
            values = [value for told in record.values() for value in (told if isinstance(told, list) else [told])]
            secret = [value for value in values if isinstance(value, bytes)]
            numbers[f"{record_name}.values"] = len(secret)
            texts[f"{record_name}.sha256"] = hashlib.sha256(b"".join(secret)).hexdigest()
            continue
        for key, value in record.items():
            plain = _plain(value)
            first = plain[0] if isinstance(plain, list) and plain else plain
            (numbers if isinstance(first, int | float) else texts)[f"{record_name}.{key}"] = plain
    return {"arrays": arrays, "bytes": array_bytes(content), "numbers": numbers, "texts": texts}


def _plain(value: object) -> Any:
    """Return a value that JSON can hold: bytes as hexadecimal digits, NaN and infinity as texts."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_egress(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log, oldest first, without the unreadable ones; no lines if there is no file.

    Raises:
        StorageError: The file cannot be read.
    """
    return [line for line in map(_parsed, _raw_lines(path)) if line is not None]


def count_unreadable(path: Path) -> int:
    """Return how many lines of a log are unreadable.

    Raises:
        StorageError: The file cannot be read.
    """
    return sum(_parsed(raw) is None for raw in _raw_lines(path))


def _raw_lines(path: Path) -> list[bytes]:
    return [raw for raw in raw_lines(path) if raw.strip()]


def _parsed(raw: bytes) -> dict[str, Any] | None:
    """Parse one line; return None if it is torn or lacks a key."""
    try:
        line = json.loads(raw)
        datetime.fromisoformat(line["time"])
        return {key: line[key] for key in KEYS}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
