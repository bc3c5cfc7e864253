"""What a site keeps of its secure sums: what it answered, so that it never masks twice, and what still opens a sum.

```
secure/<run>-<kind>.json       by round: contexts that were answered, and sites for whose sum it revealed
secure/<run>-<kind>.reply      the last masked reply, as it left
secure/<run>-<kind>.open       what takes its masks off, until the site reveals or masks the next one
secure/<run>-<kind>.revealed   what it revealed of it, as it left
```

<run> is a hash of the run's name, <kind> the request's. All files are readable by their owner alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fedrag.files import read_json, write_private
from fedrag.secure_sum.masking import OpenRound
from fedrag.secure_sum.refused import SecureSumRefused
from fedrag.secure_sum.sum_terms import survivors_digest

_CONTEXT_BYTES = 32


@dataclass(frozen=True, slots=True)
class SumOfRound:
    """Which sum a site masked for.

    Attributes:
        run: Name of the run.
        kind: Message type of the request.
        round_number: The round.
    """

    run: str
    kind: str
    round_number: int


@dataclass(frozen=True, slots=True)
class _List:
    """The sums of a run, of one kind.

    Attributes:
        run: Name of the run.
        kind: Message type of the requests.
        rounds: Contexts that were answered, by round.
        revealed: Names of the sites for whose sum the site revealed, by round.
    """

    run: str
    kind: str
    rounds: dict[str, list[str]] = field(default_factory=dict)
    revealed: dict[str, list[str]] = field(default_factory=dict)


class SecureStore:
    """The secure sums of one site.

    Args:
        folder: Where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def reply(self, run: str, kind: str, context: bytes) -> bytes | None:
        """Return the masked reply of a context as it left; None: the site has not masked under it.

        Raises:
            SecureSumRefused: It has, and the reply is gone: two masked vectors of one context tell their difference.
        """
        if context.hex() not in sum(self._list(run, kind).rounds.values(), []):
            return None
        kept = _read(self._path(run, kind, "reply"))
        if kept[:_CONTEXT_BYTES] != context:
            raise SecureSumRefused("secure-superseded", "it masked under this context before; its reply is gone")
        return kept[_CONTEXT_BYTES:]

    def require_left(self, run: str, kind: str, round_number: int, most: int) -> None:
        """Raise SecureSumRefused where a round was masked as often as it may be."""
        answered = len(self._list(run, kind).rounds.get(str(round_number), []))
        if answered >= most:
            raise SecureSumRefused("secure-repeats", f"round {round_number} was masked {answered} times already")

    def require_same_sites(self, run: str, kind: str, round_number: int, sites: Iterable[str], exactly: bool) -> None:
        """Require that a round in which the site revealed is summed over the same sites again, and no others.

        Nobody here can tell whether that sum was opened: the difference of two sums of one round, the second without a
        site, is what that site sent.

        Args:
            run: Name of the run.
            kind: Message type of the request.
            round_number: The round.
            sites: Who is to be in the sum.
            exactly: Whether they are the survivors; else they are a roster, in which others may be gone by then.

        Raises:
            SecureSumRefused: The site revealed in this round for other sites.
        """
        before = self._list(run, kind).revealed.get(str(round_number))
        now = set(sites)
        if before is not None and (now != set(before) if exactly else not set(before) <= now):
            raise SecureSumRefused("secure-other-sites", f"in round {round_number} it revealed for other sites before")

    def keep(self, run: str, kind: str, round_number: int, kept: OpenRound, reply: bytes) -> None:
        """Keep a masked reply before it leaves, and what opens it, in place of the last of this run and kind.

        Raises:
            StorageError: It cannot be written, and must not leave.
        """
        for part in ("open", "revealed", "reply"):
            self._path(run, kind, part).unlink(missing_ok=True)
        told = self._list(run, kind)
        told.rounds.setdefault(str(round_number), []).append(kept.context.hex())
        # The context first: what was interrupted here is refused, not masked again.
        self._write_list(told)
        write_private(self._path(run, kind, "open"), kept.to_bytes())
        write_private(self._path(run, kind, "reply"), kept.context + reply)

    def sum_of(self, context: bytes) -> SumOfRound:
        """Return which sum a context is of.

        Raises:
            SecureSumRefused: The site has not masked under it.
        """
        for path in sorted(self._folder.glob("*.json")):
            told = _List(**read_json(path))
            for number, contexts in told.rounds.items():
                if context.hex() in contexts:
                    return SumOfRound(told.run, told.kind, int(number))
        raise SecureSumRefused("secure-superseded", "nothing is kept of the sum that is to be revealed")

    def open_round(self, of: SumOfRound, context: bytes) -> OpenRound:
        """Return what opens the sum of a context.

        Raises:
            SecureSumRefused: It is not kept any more.
        """
        path = self._path(of.run, of.kind, "open")
        if path.is_file() and (kept := OpenRound.from_bytes(path.read_bytes())).context == context:
            return kept
        raise SecureSumRefused("secure-superseded", "nothing is kept of the sum that is to be revealed")

    def revealed(self, of: SumOfRound, context: bytes, survivors: Iterable[str]) -> bytes | None:
        """Return what the site revealed of a context, as it left; None: nothing yet.

        Args:
            of: Which sum the context is of.
            context: The context.
            survivors: The survivors that it is now asked for.

        Raises:
            SecureSumRefused: It revealed for other survivors: what it would add opens single sites.
        """
        kept = _read(self._path(of.run, of.kind, "revealed"))
        head = context + bytes.fromhex(survivors_digest(context, survivors))
        if kept[: len(head)] == head:
            return kept[len(head) :]
        if kept[:_CONTEXT_BYTES] == context:
            raise SecureSumRefused("secure-survivors", "it revealed for other survivors before")
        return None

    def keep_revealed(self, of: SumOfRound, context: bytes, survivors: Iterable[str], reply: bytes) -> None:
        """Keep what is revealed before it leaves, and delete what opens the sum.

        Raises:
            StorageError: It cannot be written, and must not leave.
        """
        told, names = self._list(of.run, of.kind), sorted(survivors)
        told.revealed[str(of.round_number)] = names
        self._write_list(told)
        head = context + bytes.fromhex(survivors_digest(context, names))
        write_private(self._path(of.run, of.kind, "revealed"), head + reply)
        self._path(of.run, of.kind, "open").unlink()

    def _list(self, run: str, kind: str) -> _List:
        path = self._path(run, kind, "json")
        return _List(**read_json(path)) if path.is_file() else _List(run, kind)

    def _write_list(self, told: _List) -> None:
        write_private(self._path(told.run, told.kind, "json"), json.dumps(asdict(told)).encode())

    def _path(self, run: str, kind: str, part: str) -> Path:
        name = hashlib.sha256(run.encode()).hexdigest()[:32]
        return self._folder / f"{name}-{kind.replace('.', '-')}.{part}"


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
