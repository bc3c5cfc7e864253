"""`fedrag data import`: turn data in another format into a folder of sites."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedrag.cli.data_import_tables import TABLE_HELPS, hub, table
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
from fedrag.errors import ConfigError
from fedrag.types import LANGUAGE_PATTERN

import_app = typer.Typer(help="Turn data in another format into a folder of sites.", no_args_is_help=True)


class SiteBy(StrEnum):
    """The unit of a SQuAD file that becomes a site."""

    TITLE = "title"


class PassageFrom(StrEnum):
    """Messages of a conversation that are passages as a whole."""

    TOOL = "tool"


SiteKeyOption = Annotated[
    str | None, typer.Option("--site", help="Key that names the site; without it, there is one site.")
]
ROWS_HELP = """Import {what}.

Example: fedrag data import {example}
"""


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
    import_sites(out, split, lambda fractions: import_squad(file, fractions, seed, groups, encoding, language, files))


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

    import_sites(out, split, lambda fractions: import_medquad(folder, fractions, seed))


for _kind, _told in TABLE_HELPS.items():
    import_app.command(_kind, help=_told)(table)
import_app.command()(hub)


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

    layout, corpus = ChatLayout(pattern, site, passage_from is PassageFrom.TOOL), read_corpus(passages)
    import_sites(out, split, lambda fractions: import_openai_chat(file, layout, corpus, fractions, seed, encoding))


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
    import_sites(out, split, lambda fractions: read(file, site, fractions, seed, encoding))


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

    import_sites(out, split, lambda fractions: import_pubmedqa(file, answer.value, fractions, seed, encoding))


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

    import_sites(out, split, lambda fractions: import_haystack(file, documents, groups, fractions, seed, encoding))


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

    import_sites(
        out,
        split or DEFAULT_SPLIT,
        lambda fractions: import_beir(folder, fractions if split else None, seed, encoding),
    )
