"""What a site keeps of its secure sums: what it answered, so that it never masks twice, and what still opens a sum.

```
secure/<run>-<kind>.json       contexts that were answered, by round
secure/<run>-<kind>.reply      the last masked reply, as it left
secure/<run>-<kind>.open       what takes its masks off, until the site reveals or masks the next one
secure/<run>-<kind>.revealed   what it revealed of it, as it left
```

<run> is a hash of the run's name, <kind> the request's. All files are readable by their owner alone.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from fedrag.files import read_json, write_private
from fedrag.secure_sum.masking import OpenRound
from fedrag.secure_sum.refused import SecureSumRefused

_CONTEXT_BYTES = 32


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
        if context.hex() not in sum(self._answered(run, kind).values(), []):
            return None
        kept = _read(self._path(run, kind, "reply"))
        if kept[:_CONTEXT_BYTES] != context:
            raise SecureSumRefused("secure-superseded", "it masked under this context before; its reply is gone")
        return kept[_CONTEXT_BYTES:]

    def require_left(self, run: str, kind: str, round_number: int, most: int) -> None:
        """Raise SecureSumRefused where a round was masked as often as it may be."""
        answered = len(self._answered(run, kind).get(str(round_number), []))
        if answered >= most:
            raise SecureSumRefused("secure-repeats", f"round {round_number} was masked {answered} times already")

    def keep(self, run: str, kind: str, round_number: int, kept: OpenRound, reply: bytes) -> None:
        """Keep a masked reply before it leaves, and what opens it, in place of the last of this run and kind.

        Raises:
            StorageError: It cannot be written, and must not leave.
        """
        for part in ("open", "revealed", "reply"):
            self._path(run, kind, part).unlink(missing_ok=True)
        answered = self._answered(run, kind)
        answered.setdefault(str(round_number), []).append(kept.context.hex())
        # The context first: what was interrupted here is refused, not masked again.
        write_private(self._path(run, kind, "json"), json.dumps({"run": run, "rounds": answered}).encode())
        write_private(self._path(run, kind, "open"), kept.to_bytes())
        write_private(self._path(run, kind, "reply"), kept.context + reply)

    def open_round(self, context: bytes) -> OpenRound:
        """Return what opens the sum of a context.

        Raises:
            SecureSumRefused: It is not kept any more, or never was.
        """
        for path in sorted(self._folder.glob("*.open")):
            kept = OpenRound.from_bytes(path.read_bytes())
            if kept.context == context:
                return kept
        raise SecureSumRefused("secure-superseded", "nothing is kept of the sum that is to be revealed")

    def revealed(self, context: bytes, survivors: str) -> bytes | None:
        """Return what the site revealed of a context, as it left; None: nothing yet.

        Args:
            context: The context.
            survivors: Digest of the survivors that it is now asked for.

        Raises:
            SecureSumRefused: It revealed for other survivors: what it would add opens single sites.
        """
        for path in sorted(self._folder.glob("*.revealed")):
            kept = path.read_bytes()
            head = context + bytes.fromhex(survivors)
            if kept[: len(head)] == head:
                return kept[len(head) :]
            if kept[:_CONTEXT_BYTES] == context:
                raise SecureSumRefused("secure-survivors", "it revealed for other survivors before")
        return None

    def keep_revealed(self, context: bytes, survivors: str, reply: bytes) -> None:
        """Keep what is revealed before it leaves, and delete what opens the sum.

        Raises:
            StorageError: It cannot be written, and must not leave.
        """
        for path in sorted(self._folder.glob("*.open")):
            if OpenRound.from_bytes(path.read_bytes()).context == context:
                write_private(path.with_suffix(".revealed"), context + bytes.fromhex(survivors) + reply)
                path.unlink()

    def _answered(self, run: str, kind: str) -> dict[str, list[str]]:
        path = self._path(run, kind, "json")
        rounds: dict[str, list[str]] = read_json(path)["rounds"] if path.is_file() else {}
        return rounds

    def _path(self, run: str, kind: str, part: str) -> Path:
        name = hashlib.sha256(run.encode()).hexdigest()[:32]
        return self._folder / f"{name}-{kind.replace('.', '-')}.{part}"


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
