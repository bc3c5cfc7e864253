"""The audit of a site: a row per reply from its egress log, and what the log cannot show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_LABEL = re.compile(r"^(metrics\.metric|metrics|counts|policy|greeting|refusal)\.")
"""Prefixes that the audit leaves out of names."""

ALSO_LEAVES = (
    "Every reply also carries the name of this site, the version of fedrag, the time and a signature.",
    "Flower's own connection sends a heartbeat every 30 seconds and version numbers, and the server sees the network "
    "address of this site. None of that is in this log.",
    "The update of a single site can carry traces of the questions and passages it was trained on. Nothing hides it "
    "from the coordinator until secure aggregation is on.",
)
"""What the log cannot show; the audit prints it too."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One reply in an audit.

    Attributes:
        when: Local date and time.
        round_number: From 1; 0 outside of rounds.
        kind: What the reply was to, such as "train", or "refusal".
        components: Components whose tensors left.
        n_bytes: Bytes of all arrays.
        told: Numbers and texts, as `name value`.
    """

    when: str
    round_number: int
    kind: str
    components: tuple[str, ...]
    n_bytes: int
    told: tuple[str, ...]


def audit_rows(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[AuditRow]]:
    """Return a row per reply for each run, the runs in the order in which they began."""
    rows: dict[str, list[AuditRow]] = {}
    for line in lines:
        rows.setdefault(str(line["run"]), []).append(
            AuditRow(
                when=datetime.fromisoformat(line["time"]).strftime("%Y-%m-%d %H:%M"),
                round_number=int(line["round"]),
                kind=str(line["kind"]),
                components=tuple(array["name"].rpartition(".")[2] for array in line["arrays"]),
                n_bytes=int(line["bytes"]),
                told=tuple(
                    f"{_LABEL.sub('', name)} {_short(value)}"
                    for name, value in (line["numbers"] | line["texts"]).items()
                ),
            )
        )
    return rows


def _short(value: object) -> str:
    """Return a value as a table shows it; a hash or a signature is cut to its first digits."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 32 else f"{text[:12]}..."
