"""`fedrag data`: check and partition the folders of sites; data_import.py and data_documents.py have the importers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrag.cli import data_augment, data_canaries, data_documents
from fedrag.cli.data_import import import_app
from fedrag.cli.import_options import OutArgument
from fedrag.cli.imported_sites import written_sites
from fedrag.errors import FedragError
from fedrag.types import SPLITS

if TYPE_CHECKING:
    from fedrag.config.rag_settings import RagConfig
    from fedrag.data.check import Lengths, Report, SiteReport
    from fedrag.rag.cuts import Cuts

ERRORS_SHOWN = 20
LOG_WIDTH = 140

app = typer.Typer(help="Check, import and partition the folders of sites.", no_args_is_help=True)
app.add_typer(import_app, name="import")
app.command("update")(data_documents.update)
app.command()(data_augment.questions)
app.command()(data_augment.answers)
app.command()(data_canaries.canaries)


class PartitionBy(StrEnum):
    """Ways to deal data to clients; see `fedrag.data.partition`."""

    IID = "iid"
    DIRICHLET = "dirichlet"
    SOURCE = "source"
    TOPIC = "topic"


@app.command()
def check(
    folders: Annotated[list[Path], typer.Argument(help="Site folders, or folders of sites.", show_default=False)],
    json_file: Annotated[Path | None, typer.Option("--json", help="File for the whole report.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Fetched model in whose tokens to count lengths and cuts.")
    ] = None,
    scenario: Annotated[
        Path | None,
        typer.Option("--scenario", help="Scenario whose prompts and answers must hold the texts; counts those cut."),
    ] = None,
) -> None:
    """Check sites for errors, and for questions in more than one split.

    Example: fedrag data check simulations/data/tiny
    """
    from fedrag.config.rag_settings import RagConfig
    from fedrag.config.scenario import Config
    from fedrag.data.check import check_sites
    from fedrag.data.site_folder import site_folders
    from fedrag.files import write_json
    from fedrag.text import plural

    config = Config.from_file(scenario) if scenario is not None else None
    rag, generator = (config.rag, config.models.generator) if config else (RagConfig(), model)
    model = model or generator
    count_tokens = _token_counter(model) if model else None
    sites = [site for folder in folders for site in site_folders(folder)]
    report = check_sites(sites, count_tokens)
    cuts = _cuts(sites, generator, rag) if generator and not report.errors else {}
    if json_file is not None:
        write_json(json_file, asdict(report) | {"cuts": {name: asdict(found) for name, found in cuts.items()}})
    _print_table(report, f"tokens of {model}" if model else "words")
    _print_origins(report)
    for site in report.sites:
        if site.n_subjects:
            named = f"{plural(site.n_with_subject, 'question')} of {plural(site.n_subjects, 'subject')}"
            others = sum(site.n_questions.values()) - site.n_with_subject
            typer.echo(f"{site.name}: {named}" + (f", {others:,} without a subject." if others else "."))
    if cuts:
        _print_cuts(cuts.values(), rag)
    for warning in report.warnings:
        typer.echo(f"Warning: {warning}")
    for error in report.errors[:ERRORS_SHOWN]:
        typer.echo(f"Error: {error}", err=True)
    if len(report.errors) > ERRORS_SHOWN:
        left = len(report.errors) - ERRORS_SHOWN
        typer.echo(f"... and {left:,} more; --json FILE lists all of them.", err=True)
    if report.errors:
        raise typer.Exit(FedragError.exit_code)
    typer.echo("No errors.")


@app.command()
def partition(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Folder of sites.", show_default=False)],
    out: OutArgument,
    clients: Annotated[int, typer.Option("--clients", help="Number of clients.")],
    by: Annotated[PartitionBy, typer.Option("--by", help="How to deal the data.")],
    alpha: Annotated[
        float, typer.Option("--alpha", help="Concentration of the Dirichlet mix; small: clients differ.")
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the deal.")] = 0,
    retriever: Annotated[
        str | None,
        typer.Option("--retriever", help="Fetched encoder that --by topic finds topics with; by default a scenario's."),
    ] = None,
) -> None:
    """Deal the data of all sites anew to a number of clients.

    Example: fedrag data partition simulations/data/tiny data/tiny-iid --clients 4 --by iid
    """
    from fedrag.data.partition import partition as deal
    from fedrag.data.site_folder import load_sites
    from fedrag.data.writing import require_free, write_sites

    require_free(out)
    find_topics = _topic_finder(retriever, clients, seed) if by is PartitionBy.TOPIC else None
    sites = deal(load_sites(source), clients, by.value, alpha, seed, find_topics)
    write_sites(out, sites)
    typer.echo(written_sites(sites, out))


@app.command("unlabel")
def unlabel_command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Folder of sites.", show_default=False)],
    out: OutArgument,
    keep: Annotated[float, typer.Option("--keep", help="Share of the training questions that keep their labels.")],
    seed: Annotated[int, typer.Option("--seed", help="Seed of the choice, which a question's text decides.")] = 0,
) -> None:
    """Take the answers and passages of most training questions away, to measure what is learnt without them.

    Example: fedrag data unlabel simulations/data/tiny data/tiny-half --keep 0.5
    """
    from fedrag.data.site_folder import load_sites
    from fedrag.data.unlabel import unlabel
    from fedrag.data.writing import require_free, write_sites

    require_free(out)
    sites = unlabel(load_sites(source), keep, seed)
    write_sites(out, sites)
    kept, bare = (sum(map(len, rows)) for rows in zip(*((s.train, s.unanswered) for s in sites), strict=True))
    typer.echo(f"{written_sites(sites, out)}\n{kept:,} training questions keep their labels, {bare:,} are unanswered")


def _topic_finder(retriever: str | None, topics: int, seed: int) -> Callable[[Sequence[str]], list[int]]:
    """Return a function that finds topics in texts by the vectors of an untouched encoder."""
    import numpy as np
    import transformers

    from fedrag.config.inputs import ModelsConfig
    from fedrag.config.training_settings import RetrieverConfig
    from fedrag.models.retriever import Retriever
    from fedrag.retrieval.topics import topics_of
    from fedrag.weights.compute import best_device
    from fedrag.weights.store import find_model

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    fetched = find_model(retriever or ModelsConfig().retriever, "encoder")
    encoder = Retriever.load(fetched, RetrieverConfig(), best_device())

    def find(texts: Sequence[str]) -> list[int]:
        vectors = encoder.encode_passages(texts)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return topics_of(vectors / np.maximum(lengths, 1e-12), topics, seed)

    return find


def _token_counter(name: str) -> Callable[[Sequence[str]], list[int]]:
    """Return a function that counts the tokens of texts, without special tokens."""
    from fedrag.models.generator import load_tokenizer
    from fedrag.weights.store import find_model

    tokenizer = load_tokenizer(find_model(name))

    def count(texts: Sequence[str]) -> list[int]:
        ids = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
        return [len(row) for row in ids]

    return count


def _cuts(folders: Sequence[Path], generator: str, rag: RagConfig) -> dict[str, Cuts]:
    """Count by site what does not fit into a generator's prompts and answers; an encoder has none."""
    from fedrag.data.site_folder import load_site
    from fedrag.models.generator import load_tokenizer
    from fedrag.rag.cuts import count_cuts
    from fedrag.rag.prompt import PromptBuilder
    from fedrag.weights.store import find_model

    model = find_model(generator)
    if model.kind == "encoder":
        return {}
    builder = PromptBuilder(load_tokenizer(model), rag, seq2seq=model.kind == "seq2seq")
    return {site.name: count_cuts(site, builder, rag) for site in map(load_site, folders)}


def _print_cuts(cuts: Iterable[Cuts], rag: RagConfig) -> None:
    from fedrag.rag.cuts import sum_of_cuts

    text = sum_of_cuts(cuts).text(rag)
    typer.echo(f"{text[0].upper()}{text[1:]}.")


def _print_table(report: Report, unit: str) -> None:
    """Print a line per site: lines of each file, distinct questions, and lengths as median/longest."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, caption=_caption(report, unit), padding=(0, 1, 0, 0))
    table.add_column("Site", overflow="fold")
    for heading in ("Passages", "Train", "Valid.", "Test", "Distinct", "Passage", "Question", "Answer"):
        table.add_column(heading, justify="right", no_wrap=True)
    for site in report.sites:
        lengths = (site.passage_lengths, site.question_lengths, site.answer_lengths)
        table.add_row(Text(site.name), *_counts([site]), *map(_lengths, lengths))
    if len(report.sites) > 1:
        table.add_section()
        table.add_row(f"{len(report.sites)} sites", *_counts(report.sites))
    console = Console()
    if not console.is_terminal:
        console.width = LOG_WIDTH  # in 80 columns rich would fold the names
    console.print(table)


def _print_origins(report: Report) -> None:
    """Print where the questions come from, of each site that has others than people's, and of all."""
    from fedrag.data.origins import origins_text, sum_origins

    mixed = [site for site in report.sites if site.n_by_origin]
    for site in mixed:
        typer.echo(f"{site.name}: {origins_text(site.n_by_origin)}.")
    if len(mixed) > 1:
        typer.echo(f"{len(mixed)} sites: {origins_text(sum_origins(site.n_by_origin for site in mixed))}.")


def _caption(report: Report, unit: str) -> str:
    lines = [f"Lengths: median/longest, in {unit}. Distinct: questions of different text at their site."]
    languages = [f"{site.name} {site.language}" for site in report.sites if site.language]
    waiting = [f"{site.name} {site.n_waiting:,}" for site in report.sites if site.n_waiting]
    lines += [f"Languages: {', '.join(languages)}."] if languages else []
    lines += [f"Questions that nobody answered: {', '.join(waiting)}."] if waiting else []
    return "\n".join(lines)


def _counts(sites: Sequence[SiteReport]) -> list[str]:
    splits = [sum(site.n_questions[split] for site in sites) for split in SPLITS]
    distinct = sum(sum(site.n_distinct.values()) for site in sites)
    return [f"{count:,}" for count in (sum(site.n_passages for site in sites), *splits, distinct)]


def _lengths(lengths: Lengths) -> str:
    return f"{lengths.median:g}/{lengths.longest}"
