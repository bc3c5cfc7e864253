"""What a site worked on each day, kept on disk: how often, and for how long.

Time is paid for before it is worked, some seconds at a time, and what was not used is given back. So nothing that ends
work early - a crash, a newer request, a lost coordinator - makes it cheaper than it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from fedrag.errors import StorageError
from fedrag.files import storage_errors, write_json

LEDGER_FILE = "ledger.json"

WorkKind = Literal["train", "validate", "diagnose", "measure"]
"""Kinds of work that are counted: what a coordinator asks, and `measure`, which the site does with deliveries."""

_DAYS = 40  # that are kept


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a site did on one day.

    Attributes:
        begun: How often each kind of work was begun.
        seconds: Seconds of work, with those that are paid for and still run.
    """

    begun: Mapping[WorkKind, int] = field(default_factory=dict)
    seconds: float = 0.0


def _local_time() -> datetime:
    return datetime.now().astimezone()


@dataclass(frozen=True, slots=True)
class Clock:
    """Where the time comes from.

    Attributes:
        now: Gives the time of day, in the site's time zone; it may be set, also back.
        elapsed: Gives seconds that never go back.
    """

    now: Callable[[], datetime] = _local_time
    elapsed: Callable[[], float] = time.monotonic


SYSTEM_CLOCK = Clock()


class WorkLedger:
    """The ledger of one site; several processes may write it.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, now: datetime, request: str = "") -> Ledger:
        """Return what was done on the day of a time, but for the beginning of one request.

        Raises:
            StorageError: The file cannot be read: nobody knows what was done.
        """
        content = self._read()
        day = content["days"].get(str(now.date()), {})
        begun = {
            kind: count - (content["latest"].get(kind) == request and bool(request))
            for kind, count in day.get("begun", {}).items()
        }
        return Ledger(begun, float(day.get("seconds", 0.0)))

    def begin(self, kind: WorkKind, request: str, now: datetime) -> None:
        """Count the beginning of work; the same request, begun again after a crash, counts once."""
        with self._changing(now.date()) as (content, day):
            if content["latest"].get(kind) != request:
                content["latest"][kind] = request
                day["begun"][kind] = day["begun"].get(kind, 0) + 1

    def pay(self, seconds: float, now: datetime, most: float) -> float:
        """Pay for so many seconds of work, as far as a day's limit allows, and return for how many."""
        with self._changing(now.date()) as (_, day):
            paid: float = max(0.0, min(seconds, most - day["seconds"]))
            day["seconds"] += paid
        return paid

    def charge(self, seconds: float, day: date) -> None:
        """Charge a day with seconds that were worked and not paid for; give back what is less than 0."""
        with self._changing(day) as (_, entry):
            entry["seconds"] = max(0.0, entry["seconds"] + seconds)

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            return {"days": dict(content["days"]), "latest": dict(content["latest"])}
        except FileNotFoundError:
            return {"days": {}, "latest": {}}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{self._path}: cannot be read ({type(error).__name__}); remove it") from None

    @contextmanager
    def _changing(self, date: date) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield what the file holds and the entry of a day, and write what became of them."""
        with storage_errors(self._path), FileLock(self._path.with_name(f".{self._path.name}.lock")):
            content = self._read()
            day = {"begun": {}, "seconds": 0.0} | content["days"].get(str(date), {})
            content["days"][str(date)] = day
            yield content, day
            content["days"] = dict(sorted(content["days"].items())[-_DAYS:])
            write_json(self._path, content)
