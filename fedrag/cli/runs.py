"""`fedrag runs`: list runs with their figures."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from fedrag.cli.tables import COLUMNS, print_lines, print_rows


def runs(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Folder that holds runs.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List runs: how far each is, and its figures in per cent.

    Example: fedrag runs runs
    """
    from fedrag.reporting.run_list import FIGURES, list_runs

    found = list_runs(folder)
    if as_json:
        typer.echo(json.dumps([run.to_json() for run in found], indent=2))
        return
    rows = [
        {
            "run": run.path.name or str(run.path),
            "scenario": run.scenario or "-",
            "state": run.state,
            "began": f"{datetime.fromisoformat(run.began):%Y-%m-%d %H:%M}",
            "rounds": f"{run.rounds_done} of {run.rounds}" if run.rounds else "-",
            **{COLUMNS[metric]: _percent(run.figures.get(metric)) for metric in FIGURES},
        }
        for run in found
    ]
    print_rows(rows, empty=f"{folder} holds no run; fedrag simulate makes one")
    print_lines([f"{run.path.name} is unreadable: {run.why}" for run in found if run.state == "unreadable"])
    print_lines(
        [
            f"{run.path.name} was interrupted{f' ({run.why})' if run.why else ''}; go on with: {run.go_on}"
            for run in found
            if run.state == "interrupted"
        ]
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
