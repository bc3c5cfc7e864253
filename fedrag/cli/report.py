"""`fedrag report`: write an HTML page about a run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedrag.cli.progress import open_display
from fedrag.cli.tables import print_lines


class TrackerName(StrEnum):
    """Where a run can be shown."""

    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"
    WANDB = "wandb"
    TRACKIO = "trackio"


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, finished or not.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="File for the page; by default, report.html in the run folder."),
    ] = None,
    to: Annotated[
        list[TrackerName] | None,
        typer.Option("--to", help="Show a finished run in a tracker, too; repeat it for others."),
    ] = None,
) -> None:
    """Write the page that shows what a run did.

    Example: fedrag report runs/tiny-1 --out tiny.html

    It speaks the language of the reader's browser, or that of FEDRAG_LANG: en, vi or zh.
    """
    from fedrag.reporting.page import write_report

    if to:
        from fedrag.tracking.follow import track_finished

        with open_display() as display:
            track_finished(run, [name.value for name in to], display)
    print_lines([f"report: {write_report(run, out)}"])
