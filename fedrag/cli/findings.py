"""Shows findings as they come, and ends with exit code 2 where there is something to do."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated

import typer

from fedrag.cli.tables import print_lines
from fedrag.components.finding import Finding
from fedrag.errors import FedragError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")]


def tell_findings(findings: Iterable[Finding], as_json: bool) -> None:
    """Show findings as lines or as JSON; exit with code 2 where one is not fine."""
    told = []
    for finding in findings:
        told.append(finding)
        if not as_json:
            print_lines([f"{'ok   ' if finding.is_ok else 'to do'}  {finding.name}: {finding.text}"])
    is_ok = all(finding.is_ok for finding in told)
    if as_json:
        checks = [{"name": finding.name, "ok": finding.is_ok, "text": finding.text} for finding in told]
        typer.echo(json.dumps({"ok": is_ok, "checks": checks}, indent=2))
    if not is_ok:
        raise typer.Exit(FedragError.exit_code)
