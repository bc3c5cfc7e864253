"""`fedrag new`: write a folder to start from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer


def new(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to create.", show_default=False)],
) -> None:
    """Write a folder to start from: a scenario and two example sites.

    Example: fedrag new my-federation
    """
    import shutil
    from importlib.resources import as_file, files

    from fedrag.data.writing import new_folder

    with new_folder(folder) as partial, as_file(files("fedrag") / "template") as template:
        shutil.copytree(template, partial, dirs_exist_ok=True)
    typer.echo(f"{folder}: a scenario, two example sites and a README. Next:")
    for command in _next_commands(folder):
        typer.echo(f"  {command}")


def _next_commands(folder: Path) -> list[str]:
    """Return the commands to type next, the first of which fetches models if one is missing."""
    from fedrag.config.scenario import Config
    from fedrag.errors import ModelError
    from fedrag.weights.store import find_model

    scenario = folder / "scenario.toml"
    models = Config.from_file(scenario).models
    commands = [
        f"fedrag data check {shlex.quote(str(folder / 'sites'))}",
        f"fedrag simulate {shlex.quote(str(scenario))}",
    ]
    try:
        for name in (models.generator, models.retriever):
            find_model(name)
    except ModelError:
        return ["fedrag models fetch", *commands]
    return commands
