"""What a site's terminal says while it takes part: one line for each thing that left, as the egress log has it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedrag.federation.secure_messages import MASKED
from fedrag.site.egress import EGRESS_FILE, SURVIVORS
from fedrag.text import plural, size_text


class SentLines:
    """Says what leaves from now on.

    Args:
        folder: The site's folder.
        say: Takes a line for the administrator.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._path = folder / EGRESS_FILE
        self._say = say
        self._read = self._size()

    def tend(self) -> None:
        """Say what is new."""
        if self._size() == self._read:
            return
        with self._path.open("rb") as file:
            file.seek(self._read if self._read < self._size() else 0)
            lines = file.read().splitlines(keepends=True)
            self._read = file.tell()
        if lines and not lines[-1].endswith(b"\n"):  # it is being written
            self._read -= len(lines.pop())
        for line in lines:
            if said := _sentence(line):
                self._say(said)

    def _size(self) -> int:
        return self._path.stat().st_size if self._path.is_file() else 0


def _sentence(line: bytes) -> str:
    """Return a line of the egress log as a sentence; "" for what is no step of a run."""
    try:
        sent = json.loads(line)
        run, number, numbers = sent["run"], sent["round"], sent["numbers"]
        match sent["kind"]:
            case "greet":
                return f"{run}: this site takes part"
            case "train":
                return f"{run}, round {number}: {_update(sent, numbers)}"
            case "reveal":
                whose = f"hash of its sites {sent['texts'][SURVIVORS][:16]}"
                return f"{run}, round {number}: what opens the sum was sent, {whose}"
            case "deliver":
                return f"{run}: the trained models are here"
            case "refusal":
                where = f", round {number}" if number else ""
                code = sent["texts"]["refusal.code"]
                return f"{run}{where}: a request was refused ({code}){_WHAT_TO_DO.get(code, '')}"
    except (ValueError, KeyError, TypeError):  # torn, or not ours: fedrag client audit names it
        pass
    return ""


_WHAT_TO_DO = dict.fromkeys(
    ("secure-peers", "secure-peer-changed"),
    "; compare the fingerprints of the other sites and confirm them: fedrag client peers",
)


def _update(sent: dict[str, Any], numbers: dict[str, Any]) -> str:
    counts = [numbers[name] for name in numbers if ".num-examples." in name]
    losses = [
        f"{name.split('.')[-2]} loss {numbers[name]:.4f}"
        for name in numbers
        if name.endswith(".loss") and isinstance(numbers[name], float)
    ]
    masked = any(array["name"].startswith(f"{MASKED}.") for array in sent["arrays"])
    what = "a masked update" if masked else f"an update from {plural(max(counts, default=0), 'question')}"
    parts = [f"{what} was sent", size_text(sent["bytes"]), *losses, f"{sent['seconds']:.0f} s"]
    return ", ".join(parts)
