"""`fedrag server run --dry-run`: what a run would do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from fedrag.cli.tables import print_lines, print_rows

if TYPE_CHECKING:
    from fedrag.config.scenario import Config
    from fedrag.coordinator.server_folder import ServerFolder


def show_dry_run(folder: ServerFolder, config: Config, as_json: bool) -> None:
    """Print who would take part, what each policy would say, bytes and time."""
    from fedrag.coordinator.dry_run import dry_run, summary_lines

    found = dry_run(folder, config)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return
    rows = [
        {"site": site.site, "state": site.state, "would": site.answer, "it says": "; ".join(site.says)}
        for site in found.sites
    ]
    print_rows(rows, empty="no site is registered")
    print_lines(summary_lines(found))
