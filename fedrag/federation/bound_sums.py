"""For whose sum a round was to be revealed: if that was lost, the round is summed over the same sites again.

No site reveals in one round for two sets of sites: the difference of the sums would tell those that are in one alone.

```
secure_sums.json    {"train.round": {"round": 3, "survivors": ["east", "north", "south"]}}
```
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedrag.files import read_json, write_json

SUMS_FILE = "secure_sums.json"


def bind_sum(run: Path, kind: str, round_number: int, survivors: Sequence[str]) -> None:
    """Note for whose sum sites are asked to reveal, before they are.

    Args:
        run: The run's folder.
        kind: Message type of the request whose replies are summed.
        round_number: The round.
        survivors: Names of the sites.

    Raises:
        StorageError: It cannot be written; nobody may be asked.
    """
    write_json(run / SUMS_FILE, _read(run) | {kind: {"round": round_number, "survivors": list(survivors)}})


def bound_sites(run: Path, kind: str, round_number: int) -> tuple[str, ...] | None:
    """Return the names of the sites of whose sum alone a round can still be; None: of any.

    Args:
        run: The run's folder.
        kind: Message type of the request whose replies are summed.
        round_number: The round.
    """
    told = _read(run).get(kind, {})
    return tuple(told["survivors"]) if told.get("round") == round_number else None


def _read(run: Path) -> dict[str, Any]:
    path = run / SUMS_FILE
    return read_json(path) if path.is_file() else {}
