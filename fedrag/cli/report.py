"""`fedrag report`: write an HTML page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedrag.cli.tables import print_lines


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, finished or not.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="File for the page; by default, report.html in the run folder."),
    ] = None,
) -> None:
    """Write the page that shows what a run did.

    Example: fedrag report runs/tiny-1 --out tiny.html
    """
    from fedrag.reporting.page import write_report

    print_lines([f"report: {write_report(run, out)}"])
