"""The `fedrag` command: its verbs, and how it shows errors."""

from __future__ import annotations

import errno
import logging
import os
from importlib.metadata import version
from typing import Annotated, Any

import click
import typer
from typer.core import TyperGroup

from fedrag.cli import (
    ask,
    audit,
    client,
    compare,
    data,
    diagnose,
    evaluate,
    export,
    feedback,
    models,
    new,
    report,
    runs,
    serve,
    server,
    simulate,
)
from fedrag.cli.encoding import use_utf8
from fedrag.errors import FedragError
from fedrag.service.environment import QUIET
from fedrag.text import printable

INTERRUPTED = 130


class _Commands(TyperGroup):
    """The commands; they show an error that the user can fix in one sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an unexpected error keeps its traceback."""
        try:
            return super().invoke(ctx)
        except FedragError as error:
            typer.echo(f"Error: {printable(str(error))}", err=True)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            typer.echo("Stopped.", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            where = f": {error.filename} could not be written" if error.filename else ""
            typer.echo(f"Error: no space left on the disk{where}", err=True)
            raise typer.Exit(FedragError.exit_code) from error


app = typer.Typer(
    cls=_Commands,
    help="Fine-tune retrieval-augmented generation across sites that share no data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("simulate")(simulate.simulate_command)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("runs")(runs.runs)
app.command("diagnose")(diagnose.diagnose)
app.command("audit")(audit.audit)
app.command("report")(report.report)
app.command("ask")(ask.ask_command)
app.command("serve")(serve.serve)
app.command("export")(export.export)
app.command("new")(new.new)
app.add_typer(data.app, name="data")
app.add_typer(feedback.app, name="feedback")
app.add_typer(models.app, name="models")
app.add_typer(server.app, name="server")
app.add_typer(client.app, name="client")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedrag {version('fedrag')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    use_utf8()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it reports its font cache
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # it advertises another library
    app()
