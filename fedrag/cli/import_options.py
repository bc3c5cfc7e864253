"""What the verbs of `fedrag data import` have in common: arguments and options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_SPLIT = "0.6/0.1/0.3"
FileArgument = Annotated[Path, typer.Argument(help="The file to read.", show_default=False)]
OutArgument = Annotated[Path, typer.Argument(help="The folder to create.", show_default=False)]
SplitOption = Annotated[str, typer.Option("--split", help="Shares of train/validation/test.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the split.")]
EncodingOption = Annotated[
    str | None,
    typer.Option("--encoding", help="Encoding of the text, such as cp1252; default: by its byte order mark, or UTF-8."),
]
PassagesOption = Annotated[
    Path | None, typer.Option("--passages", help="JSON lines with id and text: passages that every site gets.")
]
