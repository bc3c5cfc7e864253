"""The log of a child process: of bounded size while it runs, and what repeats is counted instead of written."""

from __future__ import annotations

import os
import re
import selectors
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

LOG_BYTES = 20_000_000  # then a log becomes the older one of two
LINE_BYTES = 4_000
READ_BYTES = 65_536
MINUTE_S = 60.0
FULL_LINES = 60  # of one kind in a minute
MOST_KINDS = 100  # in a minute: what lies beyond them is one kind more
OTHERS = "lines of further kinds"

_NUMBER = re.compile(r"(?:0x)?[0-9]+")
_WRITING = threading.Lock()  # two children may have one log

Kind = Callable[[str], str]
"""What a line of a log is one more of; "" for a line that is always written."""


def shape(line: str) -> str:
    """Return a line without its numbers: a time, an address or a count makes no other kind of line.

    >>> shape("10:31:07 lost 127.0.0.1:5123")
    '#:#:# lost #.#.#.#:#'
    """
    return _NUMBER.sub("#", line[:300])[:120]


@dataclass(slots=True)
class Noise:
    """Lets the first lines of a kind through in each minute, and counts the others.

    Attributes:
        kind: What a line is one more of.
        full_lines: How many of a kind pass in a minute.
    """

    kind: Kind = shape
    full_lines: int = FULL_LINES
    _seen: dict[str, int] = field(default_factory=dict)
    _last: dict[str, str] = field(default_factory=dict)

    def passes(self, line: str) -> bool:
        """Return whether a line is to be written."""
        kind = self.kind(line)
        if not kind:
            return True
        if kind not in self._seen and len(self._seen) >= MOST_KINDS:
            kind = OTHERS
        self._seen[kind] = self._seen.get(kind, 0) + 1
        if self._seen[kind] <= self.full_lines:
            return True
        self._last[kind] = line
        return False

    def end_minute(self) -> list[str]:
        """Return a line for each kind of which lines were held back, and begin a new minute."""
        now = datetime.now().isoformat(sep=" ", timespec="seconds")
        counts = [
            f"{now} {self._seen[kind] - self.full_lines} more lines like this in the last minute: {line[:300]}"
            for kind, line in self._last.items()
        ]
        self._seen.clear()
        self._last.clear()
        return counts


class ChildLog:
    """Writes what a child prints into a file and, once that is large, moves it aside: two files are kept.

    Args:
        path: The file; the older one ends in `.1.log`.
        noise: What of it is counted.
    """

    def __init__(self, path: Path, noise: Noise) -> None:
        self._path = path
        self._noise = noise
        self._lost = 0
        self._thread: threading.Thread | None = None

    def follow(self, stream: BinaryIO) -> None:
        """Write what comes from a pipe, in a thread, until all its writers are gone."""
        self._thread = threading.Thread(target=self._follow, args=(stream,), daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> None:
        """Wait until the last line of a child that has ended is written."""
        if self._thread:
            self._thread.join(timeout_s)

    def _follow(self, stream: BinaryIO) -> None:
        rest, minute_ends = b"", time.monotonic() + MINUTE_S
        with stream, selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while True:
                if selector.select(max(0.0, minute_ends - time.monotonic())):
                    chunk = os.read(stream.fileno(), READ_BYTES)
                    if not chunk:
                        break
                    *lines, rest = (rest + chunk).split(b"\n")
                    if len(rest) > LINE_BYTES:
                        lines, rest = [*lines, rest], b""
                    self._write(line for line in map(_decoded, lines) if self._noise.passes(line))
                if time.monotonic() >= minute_ends:
                    self._write(self._noise.end_minute())
                    minute_ends = time.monotonic() + MINUTE_S
        self._write([_decoded(rest)] if rest else [])
        self._write(self._noise.end_minute())

    def _write(self, lines: Iterable[str]) -> None:
        """Write lines; those that a full disk refuses are counted, and the child never waits for room."""
        kept = list(lines)
        if not kept:
            return
        if self._lost:
            kept.insert(0, f"{self._lost} lines before this one are lost: they could not be written")
        try:
            append(self._path, "".join(f"{line}\n" for line in kept).encode())
            self._lost = 0
        except OSError:
            self._lost += len(kept) - bool(self._lost)


def append(path: Path, content: bytes) -> None:
    """Add to a log; where it would become too large, move it aside first.

    Raises:
        OSError: The file cannot be written.
    """
    with _WRITING:
        if path.is_file() and path.stat().st_size + len(content) > LOG_BYTES:
            os.replace(path, path.with_suffix(".1.log"))
        with path.open("ab") as file:
            file.write(content)


def _decoded(line: bytes) -> str:
    return line[:LINE_BYTES].decode(errors="replace").rstrip("\r")
