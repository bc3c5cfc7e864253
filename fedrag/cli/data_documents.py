"""`fedrag data import documents` and `fedrag data update`: documents become the passages of a site."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrag.cli.data_import import import_app
from fedrag.cli.import_options import DEFAULT_SPLIT, EncodingOption, OutArgument, SeedOption, SplitOption
from fedrag.cli.imported_sites import print_left_out, written_sites
from fedrag.cli.progress import open_display
from fedrag.text import plural

if TYPE_CHECKING:
    from fedrag.data.document_update import Relabelled
    from fedrag.data.importers.document_folder import CutFolder

FILES_SHOWN = 40
OTHERS_NAMED = 10

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of documents.", show_default=False)]
TableOption = Annotated[
    Path | None,
    typer.Option("--qa", help="Table of questions and answers: .csv, .tsv, .xlsx, .jsonl or .parquet."),
]
TableQuestionOption = Annotated[
    str | None, typer.Option("--question", help="Its column of questions, if it is not called so.")
]
TableAnswerOption = Annotated[
    str | None, typer.Option("--answer", help="Its column of answers, if it is not called so.")
]


class DocumentsBy(StrEnum):
    """The unit of a folder of documents that becomes a site."""

    FOLDER = "folder"


@import_app.command()
def documents(
    folder: FolderArgument,
    out: OutArgument,
    qa: TableOption = None,
    site_by: Annotated[
        DocumentsBy | None, typer.Option("--site-by", help="folder: each subfolder is a site; without it, all is one.")
    ] = None,
    question: TableQuestionOption = None,
    answer: TableAnswerOption = None,
    site: Annotated[
        str | None, typer.Option("--site", help="With --site-by: the table's column of subfolders.")
    ] = None,
    split: SplitOption = DEFAULT_SPLIT,
    seed: SeedOption = 0,
    encoding: EncodingOption = None,
) -> None:
    """Import documents (.pdf, .docx, .html, .md, .txt) as one site, OUT, or with --site-by as several in OUT.

    Example: fedrag data import documents guidelines data/clinic --qa questions.xlsx
    """
    from fedrag.data.importers.document_folder import import_documents
    from fedrag.data.importers.question_table import QuestionColumns, read_question_table
    from fedrag.data.site_folder import site_name
    from fedrag.data.splitting import parse_split
    from fedrag.data.writing import require_free, write_site, write_sites

    fractions = parse_split(split)
    require_free(out)
    table = read_question_table(qa, QuestionColumns(question, answer, site), encoding) if qa else None
    with open_display() as display:
        done = import_documents(
            folder, site_name(out), table, site_by is not None, fractions, seed, encoding, qa, display
        )
    sites = done.imported.sites
    if site_by is None:
        write_site(out, sites[0])
    else:
        write_sites(out, sites)
    for name, found in done.folders.items():
        if site_by is not None:
            typer.echo(f"{name}: {plural(len(found.read.documents), 'document')}")
        _print_folder(found)
    print_left_out(done.imported)
    typer.echo(written_sites(sites, out))
    n_questions = sum(len(made.questions) for made in sites)
    if n_questions:
        typer.echo(_labelled(n_questions, done.n_unlabelled))
    elif site_by is None:
        typer.echo(f"It can be asked; to train it needs questions: fedrag data update {out} {folder} --qa TABLE")


def update(
    site: Annotated[Path, typer.Argument(metavar="SITE", help="Folder of the site.", show_default=False)],
    folder: FolderArgument,
    qa: TableOption = None,
    question: TableQuestionOption = None,
    answer: TableAnswerOption = None,
    split: SplitOption = DEFAULT_SPLIT,
    seed: SeedOption = 0,
    encoding: EncodingOption = None,
) -> None:
    """Take changed documents into a site: ids stay, and questions whose passage went are named.

    Example: fedrag data update data/clinic guidelines
    """
    from fedrag.data.document_update import update_site
    from fedrag.data.importers.question_table import QuestionColumns, read_question_table
    from fedrag.data.splitting import parse_split

    fractions = parse_split(split)
    table = read_question_table(qa, QuestionColumns(question, answer), encoding) if qa else None
    with open_display() as display:
        done = update_site(site, folder, table, fractions, seed, encoding, qa, display)
    _print_folder(done.found)
    for name in done.kept_unread:
        typer.echo(f"Note: the passages of {name} stay as they were, for it cannot be read now.")
    for lost in done.relabelled:
        typer.echo(f'Question {lost.id}, "{lost.question}": {_what_became(lost)}.')
    n_changed, n_new = len(done.numbered.changed), len(done.numbered.new)
    n_same = len(done.site.passages) - n_changed - n_new
    typer.echo(
        f"{site}: {plural(len(done.site.passages), 'passage')}: {n_same:,} as before, {n_changed:,} changed, "
        f"{n_new:,} new; {len(done.gone):,} went."
    )
    if done.n_found or done.n_asked:
        typer.echo(
            f"Questions: {done.n_asked:,} new; {done.n_found:,} that had no passage are labelled with one now, where "
            "their answer stands."
        )


def _what_became(lost: Relabelled) -> str:
    """Say what became of a question whose passage went or changed."""
    if lost.is_dropped:
        return "its passage went, and it has no answer, so it was taken out"
    if lost.labels:
        return f"its answer stands in {', '.join(lost.labels)} now, which it is labelled with"
    return "its answer stands in no passage any more; it stays without a label: correct its answer, or take it out"


def _print_folder(found: CutFolder) -> None:
    """Print what was read, and which files were left out and why."""
    from fedrag.data.documents.numbering import source_file

    counts = Counter(source_file(cut.source) for cut in found.cuts)
    names = [document.path for document in found.read.documents]
    for name in names[:FILES_SHOWN]:
        typer.echo(f"  {name}: {plural(counts[name], 'passage')}")
    if len(names) > FILES_SHOWN:
        typer.echo(f"  ... and {len(names) - FILES_SHOWN:,} more documents, read as well.")
    for name, reason in found.read.unread.items():
        typer.echo(f"Left out: {name}: {reason}.")
    if found.read.other_kinds:
        typer.echo(
            f"Left out: {plural(len(found.read.other_kinds), 'file')} of other kinds: {_some(found.read.other_kinds)}."
        )
    for note in found.notes:
        typer.echo(f"Note: {note}")


def _some(names: list[str]) -> str:
    more = ", ..." if len(names) > OTHERS_NAMED else ""
    return ", ".join(names[:OTHERS_NAMED]) + more


def _labelled(n_questions: int, n_unlabelled: int) -> str:
    """Say how many questions are labelled by where their answer stands."""
    labelled = (
        f"{n_questions - n_unlabelled:,} of {plural(n_questions, 'question')} labelled by where the answer stands"
    )
    if not n_unlabelled:
        return f"{labelled}."
    train = "trains" if n_unlabelled == 1 else "train"
    return f"{labelled}; {n_unlabelled:,} whose answer stands in no passage word for word {train} the generator alone."
