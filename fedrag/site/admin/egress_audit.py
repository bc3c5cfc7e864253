"""The audit of a site: a row per reply from its egress log, and what the log cannot show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fedrag.federation.secure_messages import MASKED
from fedrag.site.egress import SURVIVORS

WHOLE = (SURVIVORS,)
"""Texts that are shown whole, because two administrators compare them."""

_LABEL = re.compile(r"^(metrics\.metric|metrics|counts|policy|greeting|refusal)\.")
"""Prefixes that the audit leaves out of names."""

ALSO_LEAVES = (
    "Every reply also carries the name of this site, the version of fedrag, the time and a signature.",
    "Flower's own connection sends a heartbeat every 30 seconds and version numbers, and the server sees the network "
    "address of this site. None of that is in this log.",
    "The update of a single site can carry traces of the questions and passages it was trained on. In a run with "
    "federation.secure it leaves masked, as shown above, and the coordinator sees the sum of the sites alone; in any "
    'other run nothing hides it, and secure = "required" under [policy] refuses those.',
    "The hash of the survivors says whose sum a site helped to open. It is the same at all sites of it; a coordinator "
    "that told two sites different survivors has signed the proof.",
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
                components=tuple(_array(array["name"]) for array in line["arrays"]),
                n_bytes=int(line["bytes"]),
                told=tuple(
                    f"{_LABEL.sub('', name)} {value if name in WHOLE else _short(value)}"
                    for name, value in (line["numbers"] | line["texts"]).items()
                ),
            )
        )
    return rows


def _array(name: str) -> str:
    """Return the name of an array, and that it is masked where it is.

    >>> _array("update.generator"), _array("masked.generator")
    ('generator', 'generator (masked)')
    """
    record, _, component = name.rpartition(".")
    return f"{component} (masked)" if record == MASKED else component


def _short(value: object) -> str:
    """Return a value as a table shows it; a hash or a signature is cut to its first digits."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 32 else f"{text[:12]}..."
