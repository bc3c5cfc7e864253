"""`fedrag compare`: compare runs question by question."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrag.cli.tables import COLUMNS, print_lines, show
from fedrag.errors import ConfigError
from fedrag.evaluation.records import METRICS

if TYPE_CHECKING:
    from fedrag.evaluation.compare import Compared, Comparison
    from fedrag.evaluation.significance import Interval


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Folders of runs.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compare runs question by question: each minus the first.

    Example: fedrag compare runs/tiny-1 runs/tiny-2
    """
    if len(runs) < 2:
        raise ConfigError("expected the folders of two runs or more; the others are compared with the first")
    from fedrag.evaluation.compare import compare_runs
    from fedrag.runs.home_results import home_scores, kept_text

    found, common = compare_runs(*runs)
    kept = {path: told for path in runs if (told := kept_text(home_scores(path)))}
    if as_json:
        others = [
            {"run": str(one.run), "arm": one.arm, "metrics": {row.metric: asdict(row) for row in one.rows}}
            for one in found
        ]
        at_home = {"at_home": {str(path): text for path, text in kept.items()}} if kept else {}
        answer = {"first": str(runs[0]), "n_questions": common, "others": others, **at_home}
        typer.echo(json.dumps(answer, indent=2))
        return
    _print(runs, found, common)
    print_lines([f"{path.name}, personalised: {text}" for path, text in kept.items()])


def _print(runs: Sequence[Path], found: Sequence[Compared], common: int) -> None:
    """Print a line for each metric, or where more than two systems are compared, one for each of them as well."""
    from rich import box
    from rich.table import Table

    first = runs[0].name
    others = [one.run.name if one.arm == "federated" else f"{one.run.name}, {one.arm}" for one in found]
    who = "both runs" if len(runs) == 2 else f"all {len(runs)} runs"
    table = Table(
        title=f"{common:,} questions that {who} measured, in per cent", box=box.SIMPLE_HEAD, title_justify="left"
    )
    columns = ("", first, others[0]) if len(others) == 1 else ("", "Run", "Mean")
    for number, name in enumerate((*columns, "Difference", "95 % interval", "by site")):
        left = number == 0 or name == "Run"
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    rows = [one.rows for one in found]
    for line in _pair(rows[0]) if len(others) == 1 else _many(first, others, rows):
        table.add_row(*line)
    show(table)


def _pair(rows: Sequence[Comparison]) -> Iterator[list[str]]:
    for row in rows:
        yield [COLUMNS[row.metric], _percent(row.first), _percent(row.second), *_differences(row)]


def _many(first: str, others: Sequence[str], found: Sequence[Sequence[Comparison]]) -> Iterator[list[str]]:
    """Yield for each metric the mean of the first run, and what each other has more or less."""
    for metric in METRICS:
        lines = [(name, row) for name, rows in zip(others, found, strict=True) for row in rows if row.metric == metric]
        if lines:
            yield [COLUMNS[metric], first, _percent(lines[0][1].first), "", "", ""]
        for name, row in lines:
            yield ["", name, _percent(row.second), *_differences(row)]


def _differences(row: Comparison) -> list[str]:
    return [f"{100 * row.difference.mean_difference:+.1f}", _interval(row.difference), _interval(row.by_site)]


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _interval(difference: Interval | None) -> str:
    return f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}" if difference else "-"
