"""`fedrag evaluate`: measure a run's models."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedrag.cli.progress import open_display
from fedrag.cli.tables import print_lines, print_table


class SplitName(StrEnum):
    """Questions to measure."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    ALL = "all"


class SearchName(StrEnum):
    """Ways to rank passages."""

    DENSE = "dense"
    BM25 = "bm25"
    HYBRID = "hybrid"


class Part(StrEnum):
    """Parts that can be measured alone."""

    RETRIEVAL = "retrieval"


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", show_default=False)],
    data: Annotated[Path, typer.Option("--data", metavar="SITES", help="Folder of the sites to measure on.")],
    split: Annotated[SplitName, typer.Option("--split", help="Questions to measure.")] = SplitName.TEST,
    base: Annotated[bool, typer.Option("--base", help="Measure the untouched models instead.")] = False,
    only: Annotated[Part | None, typer.Option("--only", help="Measure only this, and generate no answers.")] = None,
    across: Annotated[
        bool,
        typer.Option("--across-languages", help="Search each question among the same passages in other languages."),
    ] = False,
    search: Annotated[
        SearchName | None, typer.Option("--search", help="Rank passages in this way; by default as in the run.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="File for the result.")] = None,
) -> None:
    """Measure a run's models on any sites, even on unseen ones.

    Example: fedrag evaluate runs/tiny-1 --data simulations/data/tiny --json result.json
    """
    from fedrag.data.questions import distinct_lines
    from fedrag.evaluation.evaluate import evaluate_run
    from fedrag.evaluation.records import cut_lines
    from fedrag.files import write_json
    from fedrag.runs.run_folder import RunFolder

    with open_display() as display:
        result = evaluate_run(
            run,
            data,
            split=split.value,
            base=base,
            only_retrieval=only is Part.RETRIEVAL,
            across_languages=across,
            search=search.value if search else None,
            display=display,
        )
    if json_file is not None:
        write_json(json_file, result)
    how = "" if result["search"] == "dense" else f" by {result['search']} search"
    how += " across languages" if across else ""
    title = f"{run.name}, {result['models']}{how}: {split.value} questions, in per cent"
    print_table(title, {**result["sites"], "overall": result["overall"]}, last_apart=True)
    print_lines(distinct_lines(result["overall"]["n_questions"], result["question_lines"]))
    print_lines(cut_lines({"overall": result["overall"]}, RunFolder.open(run).config.rag))
