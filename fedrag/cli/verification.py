"""Says whether a chained log is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from fedrag.errors import FedragError
from fedrag.text import plural

if TYPE_CHECKING:
    from fedrag.security.chained_log import Verification


def verification_lines(name: str, found: Verification) -> list[str]:
    """Return what a person reads about a log that was verified.

    Args:
        name: The log's name.
        found: What following its chain has shown.
    """
    older = f", after {plural(found.before, 'line')} from before the chain" if found.before else ""
    counted = f"{name}: {plural(found.lines, 'line')} in the chain{older}"
    if found.faults:
        return [f"{counted}; it is not whole:", *(f"- {fault}" for fault in found.faults)]
    if not found.lines:
        return [f"{counted}: nothing to verify"]
    return [
        f"{counted}; every line follows from the one before it.",
        f"Note this elsewhere, and give it to --noted later: {found.chain}",
    ]


def verification_report(found: Verification) -> dict[str, Any]:
    """Return the same for a program."""
    told = {"lines": found.lines, "lines_before_the_chain": found.before, "chain": found.chain}
    return {"whole": not found.faults, **told, "faults": list(found.faults)}


def exit_if_broken(found: Verification) -> None:
    """End the command with the code of an error if a log is not whole."""
    if found.faults:
        raise typer.Exit(FedragError.exit_code)
