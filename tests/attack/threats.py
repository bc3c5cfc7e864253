"""The table of threats of server/README.md, which is a list of tests; printed, they are what `make attack` runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Threat:
    """A row of the table."""

    attack: str
    defence: str
    tests: tuple[str, ...]


def threats() -> list[Threat]:
    """Return the rows of the table."""
    text = (ROOT / "server" / "README.md").read_text(encoding="utf-8")
    table = text.partition("| attack | defence | test |\n| --- | --- | --- |\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    return [Threat(attack, defence, tuple(re.findall(r"`(tests/[^`]+)`", tests))) for attack, defence, tests in rows]


def files_in_table() -> list[str]:
    """Return every file that a row names, once."""
    return sorted({file for threat in threats() for file in threat.tests})


if __name__ == "__main__":
    print(*files_in_table())  # noqa: T201  # the Makefile reads it
