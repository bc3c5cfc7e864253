"""`fedrag server audit`: who did what at a coordinator."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrag.cli.tables import plain_text, print_lines, show
from fedrag.cli.verification import exit_if_broken, verification_lines, verification_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedrag.coordinator.operator_log import RecordedCommand


def audit(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    noted: Annotated[str, typer.Option(metavar="CHAIN", help="What an earlier audit said to note.")] = "",
) -> None:
    """Show who did what, and whether a line of that was altered or removed.

    Example: fedrag server audit coordinator
    """
    from fedrag.coordinator.operator_log import operator_log, recorded_commands
    from fedrag.coordinator.server_folder import ServerFolder

    path = ServerFolder.open(folder).path
    commands, log = recorded_commands(path), operator_log(path)
    found = log.verify(noted)
    if as_json:
        typer.echo(json.dumps({"commands": [asdict(one) for one in commands], **verification_report(found)}, indent=2))
    else:
        _show(commands)
        print_lines(verification_lines(log.path.name, found))
    exit_if_broken(found)


def _show(commands: Sequence[RecordedCommand]) -> None:
    from rich import box
    from rich.table import Table

    if not commands:
        print_lines(["no command is recorded"])
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("When", "Who", "Command", "Of what", "How it ended"):
        table.add_column(heading)
    for one in commands:
        cells = (one.time[:19].replace("T", " "), one.operator.text, one.command, ", ".join(one.told.values()), one.end)
        table.add_row(*map(plain_text, cells))
    show(table)
