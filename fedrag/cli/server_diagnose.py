"""`fedrag server diagnose`: why the answers of all sites together are wrong, and what to change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fedrag.cli.diagnose import causes_table, print_advice
from fedrag.cli.tables import print_lines, show


def diagnose(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.")],
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="The run's name; by default, the latest that was diagnosed.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Add up what sites told of why their answers are wrong, and say what to change.

    Example: fedrag server diagnose coordinator
    """
    from fedrag.coordinator.server_folder import ServerFolder
    from fedrag.coordinator.told_diagnosis import NOTHING_TOLD, added_up

    found = added_up(ServerFolder.open(folder), run)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    if found is None:
        print_lines([NOTHING_TOLD])
        return
    moments = {moment: found[moment] for moment in ("before", "after") if moment in found}
    told = [f"{moment} training: {', '.join(part['sites'])}" for moment, part in moments.items()]
    print_lines(["", f"{found['run']}: validation questions of the sites that told; {'; '.join(told)}"])
    show(causes_table({f"{moment} training".capitalize(): part["counts"] for moment, part in moments.items()}))
    print_advice(found["advice"])
