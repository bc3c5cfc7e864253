"""`fedrag server check`: check a coordinator's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedrag.cli.findings import AsJson, tell_findings


def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Check who can read a coordinator's folder, its signing key and its certificate, and say what to do.

    Example: fedrag server check coordinator
    """
    from fedrag.coordinator.server_check import check_server
    from fedrag.coordinator.server_folder import ServerFolder

    tell_findings(check_server(ServerFolder.open(folder)), as_json)
