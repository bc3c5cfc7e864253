"""`fedrag client audit`: show what has left a site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrag.cli.tables import plain_text, print_lines, show
from fedrag.cli.verification import exit_if_broken, verification_lines, verification_report
from fedrag.text import plural

if TYPE_CHECKING:
    from fedrag.site.admin.egress_audit import AuditRow


def audit(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Say instead whether the log is whole.")] = False,
    noted: Annotated[str, typer.Option(metavar="CHAIN", help="What an earlier --verify said to note.")] = "",
) -> None:
    """Show everything that has left a site: when, what and how much.

    Example: fedrag client audit clinic
    """
    from fedrag.site.admin.egress_audit import ALSO_LEAVES, audit_rows
    from fedrag.site.egress import EGRESS_FILE, count_unreadable, read_egress
    from fedrag.site.site_config import SITE_FILE, SiteConfig

    name = SiteConfig.from_file(folder / SITE_FILE).name
    path = folder / EGRESS_FILE
    if verify or noted:
        _verify(path, noted, as_json)
        return
    lines, unreadable = read_egress(path), count_unreadable(path)
    if as_json:
        report = {"site": name, "replies": lines, "unreadable_lines": unreadable, "also_leaves": ALSO_LEAVES}
        typer.echo(json.dumps(report, indent=2))
        return
    runs = audit_rows(lines)
    for run, rows in runs.items():
        _show_run(run, rows)
    print_lines(_summary(name, runs, unreadable))
    print_lines(["", "What else leaves, and what an update can tell:", *(f"- {line}" for line in ALSO_LEAVES)])


def _verify(path: Path, noted: str, as_json: bool) -> None:
    from fedrag.security.chained_log import ChainedLog

    found = ChainedLog(path).verify(noted)
    if as_json:
        typer.echo(json.dumps(verification_report(found), indent=2))
    else:
        print_lines(verification_lines(path.name, found))
    exit_if_broken(found)


def _show_run(run: str, rows: list[AuditRow]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(title=plain_text(f"Run {run}"), box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    for heading in ("When", "Round", "What", "Components"):
        table.add_column(heading, no_wrap=True)
    table.add_column("Bytes", justify="right", no_wrap=True)
    table.add_column("Told in clear", overflow="fold")  # a hash that two compare is not cut
    for row in rows:
        cells = (row.when, str(row.round_number), row.kind, " and ".join(row.components) or "-")
        table.add_row(*map(plain_text, cells), f"{row.n_bytes:,}", plain_text(", ".join(row.told)))
    table.add_section()
    table.add_row("", "", f"{len(rows):,} in all", "", f"{sum(row.n_bytes for row in rows):,}", "")
    show(table)


def _summary(name: str, runs: dict[str, list[AuditRow]], unreadable: int) -> list[str]:
    replies = [row for rows in runs.values() for row in rows]
    if not replies:
        lines = [f"Nothing has left {name} yet."]
    else:
        updates = sum(bool(row.components) for row in replies)
        n_bytes = sum(row.n_bytes for row in replies)
        lines = [
            f"In all, {plural(len(replies), 'reply', 'replies')} left {name} in {plural(len(runs), 'run')}, "
            f"{updates:,} of them with an update, {n_bytes:,} bytes of arrays."
        ]
    if unreadable:
        lines.append(
            f"{plural(unreadable, 'line')} of the log cannot be read: cut off by a crash, "
            "in which case the reply was not sent, or changed since."
        )
    return lines
