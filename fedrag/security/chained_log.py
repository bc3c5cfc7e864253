"""An append-only log of JSON lines, each with a hash over all lines before it.

A line's `chain` is the sha256 of the chain of the line before it, of whatever stands between the two (a line that a
crash cut off; in a log that is older than its chain, all earlier lines), and of the line itself. So no line can be
altered, removed, put in or moved without a break. A file beside the log keeps the newest chain, the head: a log that
lost its last lines does not reach it. A writer goes on from the head, not from what it finds in the log, so that a
break stays visible for ever.

The hashes hold no secret. Whoever may write both files can make another log that verifies; it is found out by someone
who noted an earlier chain elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from fedrag.errors import FedragError, StorageError
from fedrag.files import read_json, rewrite, storage_errors
from fedrag.text import plural

if TYPE_CHECKING:
    from hashlib import _Hash

BEGINNING = "0" * 64
"""What the first line of a log follows."""

_CHAINED = re.compile(rb'(\{.+), "chain": "([0-9a-f]{64})"\}')


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain stands.

    Attributes:
        chain: Chain of the last line.
        lines: How many lines have one.
        size: Bytes of the log up to the end of that line.
    """

    chain: str = BEGINNING
    lines: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Verification:
    """What following a log from its first line to its last has shown.

    Attributes:
        lines: How many lines are in the chain.
        before: How many lines are older than the chain.
        chain: Chain of the last line, worth noting elsewhere.
        faults: A sentence for each break; none if the log is whole.
    """

    lines: int
    before: int
    chain: str
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ChainedLog:
    """A log on disk; those that write it take turns.

    Attributes:
        path: The file; its head lies beside it.
        mode: Who may read it when it is made.
    """

    path: Path
    mode: int = 0o600

    @property
    def head_path(self) -> Path:
        """The file of the head. It sorts before the log: a backup made in this order holds no head too new for it."""
        return self.path.with_suffix(".head")

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line; when this returns, it is on disk.

        Raises:
            StorageError: It cannot be written; nothing of it stays.
        """
        text = json.dumps(line, allow_nan=False).encode()
        with storage_errors(self.path):
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, self.mode)
            try:
                with FileLock(self.path.with_name(f".{self.path.name}.lock"), mode=0o600):
                    self._append(handle, text)
            finally:
                os.close(handle)

    def _append(self, handle: int, text: bytes) -> None:
        size = os.lseek(handle, 0, os.SEEK_END)
        head = self._head() or Head()
        added = os.pread(handle, size - head.size, head.size) if size > head.size else b""
        n_lines, following = _caught_up(head, added)
        chain = _chain(following, text)
        torn = b"\n" if size and os.pread(handle, 1, size - 1) != b"\n" else b""
        raw = torn + text[:-1] + f', "chain": "{chain}"}}\n'.encode()
        try:
            _write_all(handle, raw)
            os.fsync(handle)
            head = Head(chain, n_lines + 1, size + len(raw))
            rewrite(self.head_path, json.dumps(asdict(head)).encode(), like=self.path)
        except (OSError, StorageError):
            with suppress(OSError):
                os.ftruncate(handle, size)  # what the line tells of will not happen
            raise

    def _head(self) -> Head | None:
        try:
            kept = read_json(self.head_path)
            return Head(str(kept["chain"]), int(kept["lines"]), int(kept["size"]))
        except (FedragError, KeyError, TypeError, ValueError):
            return None

    def verify(self, noted: str = "") -> Verification:
        """Follow the chain through the whole log.

        Args:
            noted: A chain that somebody noted earlier, elsewhere: the log must still hold it.

        Raises:
            StorageError: The log cannot be read.
        """
        head = self._head()  # before the log: that of one which is written meanwhile is then not too new
        links = list(_links(raw_lines(self.path)))
        chains = [link.chain for link in links]
        faults = [f"line {link.number} {_BREAK}" for link in links if not link.is_whole]
        faults += _faults_at_the_end(self.head_path.name, head, chains)
        if noted and noted not in chains:
            faults.append(f"no line has the chain {noted}: the log was written anew since it was noted")
        before = links[0].number - 1 if links else len(raw_lines(self.path))
        return Verification(len(links), before, chains[-1] if chains else "", tuple(faults))


_BREAK = "does not follow from what stands before it: a line was altered, removed or put in here"


@dataclass(frozen=True, slots=True)
class _Link:
    """A line of the chain: its number in the file, and whether it is whole and follows from what stands before it."""

    number: int
    chain: str
    is_whole: bool


def _links(lines: Iterable[bytes]) -> Iterator[_Link]:
    following = hashlib.sha256(BEGINNING.encode())
    for number, raw in enumerate(lines, 1):
        if chained := _CHAINED.fullmatch(raw):
            chain = chained[2].decode()
            yield _Link(number, chain, chain == _chain(following, chained[1] + b"}"))
            following = hashlib.sha256(chain.encode())  # also after a break: what comes then is looked at for itself
        else:
            following.update(raw + b"\n")


def _caught_up(head: Head, added: bytes) -> tuple[int, _Hash]:
    """Return how many lines are in the chain, and the hash that the next one goes on from.

    Args:
        head: The head that was kept.
        added: What stands in the log after it: a whole line, where a crash came between the two, or a part of one.
    """
    n_lines, following = head.lines, hashlib.sha256(head.chain.encode())
    for raw in _split(added):
        chained = _CHAINED.fullmatch(raw)
        if chained and chained[2].decode() == _chain(following, chained[1] + b"}"):
            n_lines, following = n_lines + 1, hashlib.sha256(chained[2])
        else:
            following.update(raw + b"\n")
    return n_lines, following


def _chain(following: _Hash, body: bytes) -> str:
    """Return the chain of a line. A body holds no line end, so no other parts give the same bytes."""
    whole = following.copy()
    whole.update(b"\n" + body)
    return whole.hexdigest()


def _faults_at_the_end(name: str, head: Head | None, chains: list[str]) -> list[str]:
    if head is None:
        return (
            [f"{name} is missing or damaged, so nothing tells whether lines are missing at the end"] if chains else []
        )
    if not head.lines or head.chain in chains:
        return []
    if head.lines > len(chains):
        missing = plural(head.lines - len(chains), "line")
        return [f"the log ends before the line that {name} names: {missing} fewer than it counts"]
    return [f"no line has the chain that {name} names: the last line was altered or removed"]


def _write_all(handle: int, raw: bytes) -> None:
    rest = memoryview(raw)
    while rest:
        rest = rest[os.write(handle, rest) :]


def raw_lines(path: Path) -> list[bytes]:
    """Return the lines of a log as they stand there, cut off or not; none if there is no file.

    Raises:
        StorageError: The file cannot be read.
    """
    try:
        return _split(path.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from None


def _split(content: bytes) -> list[bytes]:
    lines = content.split(b"\n")
    return lines if lines[-1] else lines[:-1]
