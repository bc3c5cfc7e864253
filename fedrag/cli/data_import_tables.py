"""`fedrag data import csv`, `tsv`, `xlsx`, `jsonl`, `parquet` and `hub`: rows whose columns the user names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fedrag.cli.import_options import (
    DEFAULT_SPLIT,
    EncodingOption,
    FileArgument,
    OutArgument,
    PassagesOption,
    SeedOption,
    SplitOption,
)
from fedrag.cli.imported_sites import import_sites, read_corpus

if TYPE_CHECKING:
    from fedrag.data.importers.draft import Imported
    from fedrag.data.splitting import Fractions

QuestionOption = Annotated[str, typer.Option("--question", help="Column of the question.")]
AnswerOption = Annotated[
    str | None,
    typer.Option("--answer", help="Column of the answer, or of a list of answers; without it, of no question."),
]
PassageOption = Annotated[
    str | None, typer.Option("--passage", help="Column of the passage's text or, with --passages, of its id.")
]
SiteOption = Annotated[
    str | None, typer.Option("--site", help="Column that names the site; without it, there is one site.")
]
IdOption = Annotated[str | None, typer.Option("--id", help="Column of the question's id.")]
SubjectOption = Annotated[
    str | None,
    typer.Option(
        "--subject", help="Column of whom a question is about: where noise is added, it covers all of theirs."
    ),
]
_HELP = """Import {what}, one question per row; answers.text is the field text of the column answers.

Example: fedrag data import {kind} {example}
"""
_EXAMPLE = "data/qa --question q --answer a --passage context --site hospital"
_SHIPPED_EXAMPLE = (  # works unchanged in a clone
    "simulations/data/tiny/north/train.jsonl data/north --question question --answer answers "
    "--passage passage_ids --passages simulations/data/tiny/north/passages.jsonl"
)
TABLE_HELPS = {
    "jsonl": _HELP.format(what="JSON lines", kind="jsonl", example=_SHIPPED_EXAMPLE),
    "xlsx": _HELP.format(what="the first sheet of an Excel file", kind="xlsx", example=f"qa.xlsx {_EXAMPLE}"),
    "csv": _HELP.format(what="a CSV file with a header", kind="csv", example=f"qa.csv {_EXAMPLE}"),
    "tsv": _HELP.format(what="a file of tab-separated columns", kind="tsv", example=f"qa.tsv {_EXAMPLE}"),
    "parquet": _HELP.format(what="a Parquet file", kind="parquet", example=f"qa.parquet {_EXAMPLE}"),
}
"""What each verb of `table` says of itself, by its name, which is the format."""


def table(
    context: typer.Context,
    file: FileArgument,
    out: OutArgument,
    question: QuestionOption,
    answer: AnswerOption = None,
    passage: PassageOption = None,
    site: SiteOption = None,
    identity: IdOption = None,
    subject: SubjectOption = None,
    passages: PassagesOption = None,
    split: SplitOption = DEFAULT_SPLIT,
    seed: SeedOption = 0,
    encoding: EncodingOption = None,
) -> None:
    """Import a table; the command's name is the format."""
    from fedrag.data.importers.table import Columns, import_table, open_table

    columns = Columns(question, answer, passage, site, identity, subject)
    corpus = read_corpus(passages)
    opened = open_table(file, context.info_name, encoding)
    import_sites(out, split, lambda fractions: import_table(opened, columns, corpus, fractions, seed))


def hub(
    dataset: Annotated[str, typer.Argument(metavar="ID", help="Data set on the Hugging Face hub.")],
    out: OutArgument,
    question: QuestionOption,
    answer: AnswerOption = None,
    name: Annotated[str | None, typer.Option("--name", help="Configuration of the data set.")] = None,
    hub_split: Annotated[str, typer.Option("--hub-split", help="Which of its own splits to read.")] = "train",
    passage: PassageOption = None,
    site: SiteOption = None,
    identity: IdOption = None,
    subject: SubjectOption = None,
    passages: PassagesOption = None,
    split: SplitOption = DEFAULT_SPLIT,
    seed: SeedOption = 0,
) -> None:
    """Import a data set of the Hugging Face hub, one question per row.

    Example: fedrag data import hub rajpurkar/squad data/squad --question question --answer answers.text
    --passage context --site title
    """
    from fedrag.data.importers.hub_dataset import open_hub_table
    from fedrag.data.importers.table import Columns, import_table

    columns = Columns(question, answer, passage, site, identity, subject)
    corpus = read_corpus(passages)

    def read(fractions: Fractions) -> Imported:
        return import_table(open_hub_table(dataset, name, hub_split), columns, corpus, fractions, seed)

    import_sites(out, split, read)
