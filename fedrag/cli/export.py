"""`fedrag export`: write a run's trained models for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedrag.cli.tables import print_lines

Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="New folder.", show_default=False)]
Merged = Annotated[
    bool, typer.Option("--merged", help="Write the generator as a whole model, its adapter merged into it.")
]
Gguf = Annotated[
    Path | None,
    typer.Option(
        "--gguf",
        metavar="SCRIPT",
        help="Write the generator as a GGUF file, too: path of convert_hf_to_gguf.py in a checkout of llama.cpp, since "
        "no converter is kept on PyPI.",
    ),
]
OpenaiJsonl = Annotated[
    bool,
    typer.Option(
        "--openai-jsonl",
        help="Write the training questions with the passages found, too, as OpenAI's fine-tuning API takes them. They "
        "quote the data and must stay in the house.",
    ),
]
Push = Annotated[
    str | None,
    typer.Option("--push", metavar="HUB_ID", help="Upload the folder to the model hub; a new repository is private."),
]
SiteNames = Annotated[bool, typer.Option("--site-names", help="Name the sites in the model card.")]


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", show_default=False)],
    out: Out,
    merged: Merged = False,
    gguf: Gguf = None,
    openai_jsonl: OpenaiJsonl = False,
    push: Push = None,
    site_names: SiteNames = False,
) -> None:
    """Write a run's models for other programs, with a model card.

    Example: fedrag export runs/tiny-1 --out models/tiny
    """
    from fedrag.exporting.trained_system import TrainedSystem, sites_of_run
    from fedrag.exporting.write_export import ExportOptions, export_system
    from fedrag.runs.run_folder import RunFolder

    opened = RunFolder.open(run)
    options = ExportOptions(merged, gguf, openai_jsonl, push, site_names)
    print_lines(export_system(TrainedSystem.of_run(opened), out, options, sites=lambda: sites_of_run(opened)))
