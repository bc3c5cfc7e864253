"""`fedrag export`: write a run's trained models for other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedrag.cli.tables import print_lines


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder for the models.", show_default=False)],
) -> None:
    """Write a run's models for PEFT and sentence-transformers.

    Example: fedrag export runs/tiny-1 models/tiny
    """
    from fedrag.components.export import export_run

    print_lines([f"{folder.name}: {folder}" for folder in export_run(run, out)])
