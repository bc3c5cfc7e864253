"""`fedrag client check`: check whether a site is ready to take part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fedrag.cli.tables import print_lines
from fedrag.errors import FedragError


def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Check what a site needs before it takes part, and say what to do.

    Example: fedrag client check clinic
    """
    from fedrag.site.admin.client_check import check_site

    findings = []
    for finding in check_site(folder):
        findings.append(finding)
        if not as_json:
            print_lines([f"{'ok   ' if finding.is_ok else 'to do'}  {finding.name}: {finding.text}"])
    is_ok = all(finding.is_ok for finding in findings)
    if as_json:
        checks = [{"name": finding.name, "ok": finding.is_ok, "text": finding.text} for finding in findings]
        typer.echo(json.dumps({"ok": is_ok, "checks": checks}, indent=2))
    if not is_ok:
        raise typer.Exit(FedragError.exit_code)
