"""`fedrag diagnose`: why a run's answers are wrong, and what to change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from fedrag.cli.evaluate import SplitName
from fedrag.cli.progress import open_display
from fedrag.cli.tables import print_lines, show

Base = Annotated[bool, typer.Option("--base", help="Diagnose the untouched models instead.")]
Split = Annotated[
    SplitName,
    typer.Option("--split", help="Questions to look at; validation, so that the test questions choose no setting."),
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="File for the whole result, with every question and its answers."),
]


def diagnose(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", show_default=False)],
    base: Base = False,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="SITES", help="Folder of sites; by default, those that took part."),
    ] = None,
    split: Split = SplitName.VALIDATION,
    json_file: JsonFile = None,
) -> None:
    """Say why answers are wrong, and what to train or to add.

    Example: fedrag diagnose runs/tiny-1 --base --json diagnosis.json
    """
    from fedrag.diagnosis.diagnose import diagnose_run
    from fedrag.files import write_json

    with open_display() as display:
        result = diagnose_run(run, data, base=base, split=split.value, display=display)
    if json_file is not None:
        write_json(json_file, result)
    show_diagnosis(run.resolve().name, result)


def show_diagnosis(name: str, result: Mapping[str, Any]) -> None:
    """Print a diagnosis: causes, what each way of asking scores and costs, and the advice."""
    from fedrag.diagnosis.kept import forgetting_text

    counts, overall = result["overall"]["counts"], result["overall"]
    print_lines(["", f"{name}, {result['models']} models: {_questions(result)}"])
    show(causes_table({"": counts}))
    print_lines(["The same questions, asked in three ways; EM and F1 in per cent, time and tokens a question"])
    show(_given_table(overall["given"]))
    print_lines(
        [
            f"Answer in context: {100 * overall['answer_in_context']:.1f} % of the prompts hold a right answer word "
            "for word.",
            *([f"{forgetting_text(result['forgetting'])}."] if result.get("forgetting") else []),
            "",
        ]
    )
    print_advice(result["advice"])


def print_advice(advice: Mapping[str, Any]) -> None:
    """Print a recommendation, the figures that led to it, and the lines to set."""
    print_lines([f"Recommendation: {advice['headline']}.", *(f"- {reason}" for reason in advice["reasons"])])
    if advice["scenario"]:
        print_lines(["", "In the scenario:", "", *(f"  {line}" for line in advice["scenario"])])


def causes_table(columns: Mapping[str, Mapping[str, float]]) -> Table:
    """Return a table of what became of the questions: a line per cause, a column per set of counts."""
    from fedrag.diagnosis.causes import CAUSES
    from fedrag.languages.catalogue import ENGLISH

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("Answers")
    for heading in columns:
        table.add_column(heading or "Questions", justify="right", no_wrap=True)
        table.add_column("Share", justify="right", no_wrap=True)
    for cause in ("right", *CAUSES):
        cells = []
        for counts in columns.values():
            cells += [f"{counts[cause]:,.0f}", f"{100 * counts[cause] / counts['questions']:.1f} %"]
        table.add_row(ENGLISH(f"cause.{cause}"), *cells)
    return table


def _questions(result: Mapping[str, Any]) -> str:
    split = "" if result["split"] == "all" else f"{result['split']} "
    return f"{result['overall']['counts']['questions']:,} {split}questions with an answer"


_GIVEN = {
    "found": "what was found",
    "labelled": "the labelled passages",
    "closed_book": "no passages (closed book)",
}


def _given_table(given: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("Given")
    for heading in ("Questions", "EM", "F1", "Seconds", "Prompt tokens", "Answer tokens"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, words in _GIVEN.items():
        row = given[name]
        if not row["n_questions"]:
            table.add_row(words, "0", *"-----")
            continue
        table.add_row(
            words,
            f"{row['n_questions']:,}",
            *(f"{100 * row[metric]:.1f}" for metric in ("exact_match", "f1")),
            f"{row['seconds']:.2f}",
            *(f"{row[count]:.1f}" for count in ("prompt_tokens", "answer_tokens")),
        )
    return table
