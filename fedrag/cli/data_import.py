"""`fedrag data import`: turn data in another format into a folder of sites."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrag.errors import ConfigError
from fedrag.types import LANGUAGE_PATTERN, SPLITS, Passage, Site

if TYPE_CHECKING:
    from fedrag.data.importers.draft import Imported
    from fedrag.data.splitting import Fractions

import_app = typer.Typer(help="Turn data in another format into a folder of sites.", no_args_is_help=True)


class SiteBy(StrEnum):
    """The unit of a SQuAD file that becomes a site."""

    TITLE = "title"


class PassageFrom(StrEnum):
    """Messages of a conversation that are passages as a whole."""

    TOOL = "tool"


FileArgument = Annotated[Path, typer.Argument(help="The file to read.", show_default=False)]
OutArgument = Annotated[Path, typer.Argument(help="The folder to create.", show_default=False)]
SplitOption = Annotated[str, typer.Option("--split", help="Shares of train/validation/test.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of the split.")]
QuestionOption = Annotated[str, typer.Option("--question", help="Column of the question.")]
AnswerOption = Annotated[
    str | None,
    typer.Option("--answer", help="Column of the answer, or of a list of answers; without it, of no question."),
]
EncodingOption = Annotated[
    str | None,
    typer.Option("--encoding", help="Encoding of the text, such as cp1252; default: by its byte order mark, or UTF-8."),
]
SiteKeyOption = Annotated[
    str | None, typer.Option("--site", help="Key that names the site; without it, there is one site.")
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
PassagesOption = Annotated[
    Path | None, typer.Option("--passages", help="JSON lines with id and text: passages that every site gets.")
]
DEFAULT_SPLIT = "0.6/0.1/0.3"
TABLE_HELP = """Import {what}, one question per row; answers.text is the field text of the column answers.

Example: fedrag data import {kind} {example}
"""
ROWS_HELP = """Import {what}.

Example: fedrag data import {example}
"""
TABLE_EXAMPLE = "data/qa --question q --answer a --passage context --site hospital"
SHIPPED_EXAMPLE = (  # works unchanged in a clone
    "simulations/data/tiny/north/train.jsonl data/north --question question --answer answers "
    "--passage passage_ids --passages simulations/data/tiny/north/passages.jsonl"
)


@import_app.command()
def squad(
    file: FileArgument,
    out: OutArgument,
    site_by: Annotated[SiteBy, typer.Option("--site-by", help="What becomes a site.")] = SiteBy.TITLE,
    groups: Annotated[
        int | None, typer.Option("--groups", help="Group the articles into this many sites of similar size.")
    ] = None,
    language: Annotated[str, typer.Option("--language", help="Code of the file's language, such as en.")] = "",
    translation: Annotated[
        list[str] | None,
        typer.Option(
            "--translation",
            metavar="CODE=FILE",
            help="The same articles in another language, as vi=xquad.vi.json: as many sites more; may be repeated.",
        ),
    ] = None,
    split: SplitOption = DEFAULT_SPLIT,
    seed: SeedOption = 0,
    encoding: EncodingOption = None,
) -> None:
    """Import a SQuAD 1.1 or 2.0 file: an article, or a group of articles, becomes a site.

    Example: fedrag data import squad xquad.en.json data/xquad --site-by title --groups 8
    """
    from fedrag.data.importers.squad import import_squad

    files = _translations(translation or (), language)
    _import(out, split, lambda fractions: import_squad(file, fractions, seed, groups, encoding, language, files))


def _translations(given: Sequence[str], language: str) -> dict[str, Path]:
    """Read `CODE=FILE` of each translation."""
    codes = [language] if language else []
    files: dict[str, Path] = {}
    for text in given:
        code, _, file = text.partition("=")
        if not file:
            raise ConfigError(f"--translation {text}: expected CODE=FILE, such as vi=xquad.vi.json")
        files[code] = Path(file)
        codes.append(code)
    if files and not language:
        raise ConfigError("--translation needs --language, the code of the first file's language, such as en")
    for code in codes:
        if not re.fullmatch(LANGUAGE_PATTERN, code):
            raise ConfigError(f'"{code}" is no code of a language; expected such as en or zh-Hant')
    if len(set(codes)) < len(codes):
        raise ConfigError(f"{', '.join(codes)}: each language is given once")
    return files


@import_app.command()
def medquad(
    folder: Annotated[Path, typer.Argument(help="Folder of MedQuAD's source folders.", show_default=False)],
    out: OutArgument,
    split: SplitOption = DEFAULT_SPLIT,
    seed: SeedOption = 0,
) -> None:
    """Import MedQuAD: a source becomes a site, an answer is also the passage.

    Example: fedrag data import medquad MedQuAD-master data/medquad
    """
    from fedrag.data.importers.medquad import import_medquad

    _import(out, split, lambda fractions: import_medquad(folder, fractions, seed))


@import_app.command(
    "parquet", help=TABLE_HELP.format(what="a Parquet file", kind="parquet", example=f"qa.parquet {TABLE_EXAMPLE}")
)
@import_app.command(
    "tsv", help=TABLE_HELP.format(what="a file of tab-separated columns", kind="tsv", example=f"qa.tsv {TABLE_EXAMPLE}")
)
@import_app.command(
    "csv", help=TABLE_HELP.format(what="a CSV file with a header", kind="csv", example=f"qa.csv {TABLE_EXAMPLE}")
)
@import_app.command(
    "xlsx",
    help=TABLE_HELP.format(what="the first sheet of an Excel file", kind="xlsx", example=f"qa.xlsx {TABLE_EXAMPLE}"),
)
@import_app.command("jsonl", help=TABLE_HELP.format(what="JSON lines", kind="jsonl", example=SHIPPED_EXAMPLE))
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
    corpus = _read_corpus(passages)
    opened = open_table(file, context.info_name, encoding)
    _import(out, split, lambda fractions: import_table(opened, columns, corpus, fractions, seed))


@import_app.command()
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
    corpus = _read_corpus(passages)

    def read(fractions: Fractions) -> Imported:
        return import_table(open_hub_table(dataset, name, hub_split), columns, corpus, fractions, seed)

    _import(out, split, read)


@import_app.command()
def openai_chat(
    file: FileArgument,
    out: OutArgument,
    pattern: Annotated[
        str | None,
        typer.Option(
            "--passage-pattern",
            help="How to find passages in a message: context-block, llama-index, xml, numbered, "
            "or a regular expression with (?P<passage>...) and perhaps (?P<question>...).",
        ),
    ] = None,
    passage_from: Annotated[
        PassageFrom | None, typer.Option("--passage-from", help="Take what a tool returned as passages, too.")
    ] = None,
    site: SiteKeyOption = None,
    passages: PassagesOption = None,
    split: SplitOption = DEFAULT_SPLIT,
    seed: SeedOption = 0,
    encoding: EncodingOption = None,
) -> None:
    """Import OpenAI fine-tuning data: JSON lines with `messages`.

    Example: fedrag data import openai-chat chats.jsonl data/chats --passage-pattern context-block
    """
    from fedrag.data.importers.openai_chat import ChatLayout, import_openai_chat

    layout, corpus = ChatLayout(pattern, site, passage_from is PassageFrom.TOOL), _read_corpus(passages)
    _import(out, split, lambda fractions: import_openai_chat(file, layout, corpus, fractions, seed, encoding))


@import_app.command(
    "ragas",
    help=ROWS_HELP.format(
        what="a test set of ragas: questions, references and the contexts that hold them",
        example="ragas testset.csv data/testset",
    ),
)
@import_app.command(
    "triplets",
    help=ROWS_HELP.format(
        what="triplets of anchor, positive and negatives (also query, pos and neg), which train the retriever",
        example="triplets triplets.jsonl data/triplets",
    ),
)
@import_app.command(
    "hotpotqa",
    help=ROWS_HELP.format(
        what="HotpotQA: of each question's passages, those are right that its supporting facts name",
        example="hotpotqa hotpot_dev_distractor_v1.json data/hotpotqa",
    ),
)
def rows(
    context: typer.Context,
    file: FileArgument,
    out: OutArgument,
    site: SiteKeyOption = None,
    split: SplitOption = DEFAULT_SPLIT,
    seed: SeedOption = 0,
    encoding: EncodingOption = None,
) -> None:
    """Import rows whose columns have known names; the command's name is the format."""
    from fedrag.data.importers.hotpotqa import import_hotpotqa
    from fedrag.data.importers.ragas import import_ragas
    from fedrag.data.importers.triplets import import_triplets

    importers = {"hotpotqa": import_hotpotqa, "triplets": import_triplets, "ragas": import_ragas}
    read = importers[str(context.info_name)]
    _import(out, split, lambda fractions: read(file, site, fractions, seed, encoding))


class PubmedAnswers(StrEnum):
    """What of PubMedQA is learnt to be answered; see `fedrag.data.importers.pubmedqa`."""

    DECISION = "decision"
    LONG = "long"


@import_app.command()
def pubmedqa(
    file: FileArgument,
    out: OutArgument,
    answer: Annotated[
        PubmedAnswers, typer.Option("--answer", help="decision: yes, no or maybe; long: the conclusion.")
    ] = PubmedAnswers.DECISION,
    split: SplitOption = DEFAULT_SPLIT,
    seed: SeedOption = 0,
    encoding: EncodingOption = None,
) -> None:
    """Import PubMedQA as one site: a section of an abstract is a passage.

    Example: fedrag data import pubmedqa ori_pqal.json data/pubmedqa-whole
    """
    from fedrag.data.importers.pubmedqa import import_pubmedqa

    _import(out, split, lambda fractions: import_pubmedqa(file, answer.value, fractions, seed, encoding))


@import_app.command()
def haystack(
    file: FileArgument,
    out: OutArgument,
    documents: Annotated[
        Path | None, typer.Option("--documents", help="JSON of documents that become further passages.")
    ] = None,
    groups: Annotated[
        int | None, typer.Option("--groups", help="Deal the documents of an export to this many sites.")
    ] = None,
    split: SplitOption = DEFAULT_SPLIT,
    seed: SeedOption = 0,
    encoding: EncodingOption = None,
) -> None:
    """Import what Haystack's annotation tool exports, its labels, or documents with questions in their meta.

    Example: fedrag data import haystack annotations.json data/annotations
    """
    from fedrag.data.importers.haystack import import_haystack

    _import(out, split, lambda fractions: import_haystack(file, documents, groups, fractions, seed, encoding))


@import_app.command()
def beir(
    folder: Annotated[
        Path, typer.Argument(help="Folder of corpus.jsonl, queries.jsonl and qrels/.", show_default=False)
    ],
    out: OutArgument,
    split: Annotated[
        str | None, typer.Option("--split", help="Shares of new splits; without them, the files of qrels are.")
    ] = None,
    seed: SeedOption = 0,
    encoding: EncodingOption = None,
) -> None:
    """Import a retrieval data set in BEIR's layout as one site, which trains the retriever.

    Example: fedrag data import beir scifact data/scifact
    """
    from fedrag.data.importers.beir import import_beir

    _import(
        out,
        split or DEFAULT_SPLIT,
        lambda fractions: import_beir(folder, fractions if split else None, seed, encoding),
    )


def _import(out: Path, split: str, read: Callable[[Fractions], Imported]) -> None:
    """Read the data, write the sites, and print what was written and left out."""
    from fedrag.data.splitting import parse_split
    from fedrag.data.writing import require_free, write_sites

    fractions = parse_split(split)
    require_free(out)
    imported = read(fractions)
    write_sites(out, imported.sites)
    typer.echo(written_sites(imported.sites, out))
    print_left_out(imported)


def print_left_out(imported: Imported) -> None:
    """Print what was left out, read otherwise than one might expect, or is lacking."""
    for reason, count in imported.skipped.items():
        typer.echo(f"Left out: {count:,} {reason}.")
    for note in imported.notes:
        typer.echo(f"Note: {note}")
    for warning in imported.warnings:
        typer.echo(f"Warning: {warning}.")


def _read_corpus(path: Path | None) -> list[Passage]:
    from fedrag.data.site_folder import read_passages

    if path is None:
        return []
    passages = list(read_passages(path).values())
    if not passages:
        raise ConfigError(f"--passages {path}: holds no passage")
    return passages


def written_sites(sites: list[Site], out: Path) -> str:
    """Return a line about the written sites, and how many questions are distinct where some recur."""
    from fedrag.data.origins import count_origins, origins_text
    from fedrag.data.questions import count_distinct

    n_questions = {split: sum(len(site.split(split)) for site in sites) for split in SPLITS}
    splits = ", ".join(f"{count:,} {split}" for split, count in n_questions.items())
    n_passages = sum(len(site.passages) for site in sites)
    n_all = sum(n_questions.values())
    noun = "site" if len(sites) == 1 else "sites"
    n_distinct = sum(count_distinct(site.questions) for site in sites)
    distinct = f", {n_distinct:,} of them distinct at their site" if n_distinct < n_all else ""
    told = origins_text(count_origins(question for site in sites for question in site.questions))
    origins = f" Of the {told}." if told else ""
    return f"{out}: {len(sites)} {noun}, {n_passages:,} passages, {n_all:,} questions{distinct} ({splits}).{origins}"
