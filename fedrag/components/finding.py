"""One thing that was checked, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedrag.errors import FedragError

LONGEST = 600
"""Most characters of a finding's text."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    Attributes:
        name: The thing.
        is_ok: Whether it is fine.
        text: What is there, or what is wrong and what to do.
    """

    name: str
    is_ok: bool
    text: str


def found(name: str, check: Callable[[], str]) -> Finding:
    """Run one check; its error becomes a finding of one line."""
    try:
        return Finding(name, True, one_line(check()))
    except FedragError as error:
        return Finding(name, False, one_line(str(error)))
    except Exception as error:  # libraries fail in many ways, and a fault must not hide the other findings
        return Finding(name, False, one_line(f"could not be checked: {type(error).__name__}: {error}"))


def one_line(text: str) -> str:
    """Return a text without line breaks, cut where it is very long."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."
