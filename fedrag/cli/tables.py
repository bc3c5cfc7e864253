"""Prints tables and lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fedrag.evaluation.records import TITLES
from fedrag.text import printable

LOG_WIDTH = 140

COLUMNS = {"n_questions": "Questions", **TITLES}


def print_table(title: str, rows: Mapping[str, Mapping[str, Any]], last_apart: bool = False) -> None:
    """Print a row of metrics per name, in per cent, without the columns that were not measured."""
    shown = {key: name for key, name in COLUMNS.items() if any(row[key] is not None for row in rows.values())}
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    table.add_column("")
    for name in shown.values():
        table.add_column(name, justify="right", no_wrap=True)
    for position, (name, row) in enumerate(rows.items()):
        if last_apart and position == len(rows) - 1:
            table.add_section()
        table.add_row(name, *(_cell(key, row[key]) for key in shown))
    show(table)


def print_rows(rows: Sequence[Mapping[str, Any]], empty: str) -> None:
    """Print a row per mapping, with its keys as titles; print `empty` if there is none."""
    if not rows:
        print_lines([empty])
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in rows[0]:
        table.add_column(f"{name[:1].upper()}{name[1:]}".replace("_", " "))
    for row in rows:
        table.add_row(*(escape(printable(str(value))) for value in row.values()))
    show(table)


def show(table: Table) -> None:
    """Print a table; do not fold its lines unless the output is a terminal."""
    console = Console()
    if not console.is_terminal:
        console.width = LOG_WIDTH
    console.print(table)


def plain_text(told: str) -> Text:
    """Return text for a table without markup or control characters: who reads it need not trust who wrote it."""
    return Text(printable(told))


def _cell(key: str, value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if key == "n_questions" else f"{100 * value:.1f}"


def print_lines(lines: Sequence[str]) -> None:
    """Print lines as they are."""
    console = Console()
    for line in lines:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
