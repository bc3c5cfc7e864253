"""`fedrag data questions` and `fedrag data answers`: more questions to learn from, made by a model at the site."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedrag.cli.progress import open_display
from fedrag.cli.tables import print_lines
from fedrag.errors import ConfigError

if TYPE_CHECKING:
    from fedrag.augmentation.generated_questions import QuestionWriter
    from fedrag.config.scenario import Config
    from fedrag.models.resident import RoundModels
    from fedrag.types import State

SiteArgument = Annotated[Path, typer.Argument(metavar="SITE", help="The site's folder.", show_default=False)]
ScenarioOption = Annotated[
    Path | None,
    typer.Option("--scenario", help="Scenario whose models and prompts are used; without it, the default ones."),
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Most questions to add.")]


def questions(
    folder: SiteArgument,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Fetched generator that writes; with --endpoint, the name of its model."),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", metavar="URL", help="OpenAI-compatible endpoint inside the house that writes."),
    ] = None,
    scenario: ScenarioOption = None,
    limit: LimitOption = None,
    top_k: Annotated[
        int, typer.Option("--top-k", min=1, help="The retriever must find the passage among so many.")
    ] = 3,
    language: Annotated[
        str | None, typer.Option("--language", help="Language of the questions, such as vi; default: the site's own.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the passages' order, and of how a model is asked.")] = 0,
) -> None:
    """Let a model write questions from a site's passages, and add those that hold to its train.jsonl.

    Example: fedrag data questions data/hospital --limit 100

    A question is kept if it is new, the retriever finds its passage, and its answer stands there. The same command
    goes on where it was stopped.
    """
    from fedrag.augmentation.generated_questions import Search, write_questions
    from fedrag.data.site_folder import load_site
    from fedrag.data.writing import alone_at_site
    from fedrag.models.resident import RoundModels
    from fedrag.rag.indexing import build_index, shared_indexes

    config = _config(scenario, None if endpoint else model)
    load_site(folder)  # what is wrong with it is said first
    if endpoint:
        _warn_of(endpoint, folder)
    with alone_at_site(folder), open_display() as display:
        site, models = load_site(folder), RoundModels(config, {})
        with _writer(config, models, endpoint, model or "", language or site.language, seed) as writer:
            display.say("indexing the passages ...")
            overlap = config.rag.chunk_overlap
            index = build_index(models.retriever, site.passages, overlap, shared_indexes(), config.rag.search)
            search = Search(models.retriever, index, overlap, top_k)
            written = write_questions(folder, site, writer, search, limit=limit, seed=seed, display=display)
    print_lines([f"{written.added:,} questions added to {folder / 'train.jsonl'}", *written.lines])


def answers(
    folder: SiteArgument,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="RUN", help="Finished run whose models answer; without it, untouched ones."),
    ] = None,
    client: Annotated[
        Path | None,
        typer.Option("--client", metavar="DIR", help="Folder of a deployed site whose delivered models answer."),
    ] = None,
    scenario: ScenarioOption = None,
    confidence: Annotated[
        float,
        typer.Option("--confidence", min=0.0, max=1.0, help="Least geometric mean of the probabilities of its tokens."),
    ] = 0.5,
    limit: LimitOption = None,
) -> None:
    """Answer the questions of a site's unanswered.jsonl from its passages, and add what is sure to its train.jsonl.

    Example: fedrag data answers data/hospital --run runs/xquad-1

    An answer is kept if it stands in a passage that was found, and its confidence is high enough.
    """
    from fedrag.augmentation.pseudo_answers import add_answers
    from fedrag.data.site_folder import load_site
    from fedrag.data.writing import alone_at_site
    from fedrag.models.resident import RoundModels
    from fedrag.rag.indexing import build_index, shared_indexes

    if len([given for given in (run, client, scenario) if given is not None]) > 1:
        raise ConfigError("--run, --client and --scenario each name the models that answer; name one of them")
    if not load_site(folder).unanswered:
        print_lines([f"{folder}: has no unanswered question; they stand in its unanswered.jsonl"])
        return
    config, state = _answering(run, client, scenario)
    if not config.rag.passages:
        raise ConfigError(
            "rag.passages = 0: answers are kept where they stand in a passage found, so some must be found"
        )
    with alone_at_site(folder), open_display() as display:
        site, models = load_site(folder), RoundModels(config, state)
        rag = config.rag
        index = build_index(models.retriever, site.passages, rag.chunk_overlap, shared_indexes(), rag.search)
        found = add_answers(folder, site, models, index, config, confidence=confidence, limit=limit, display=display)
    print_lines([f"{found.added:,} questions added to {folder / 'train.jsonl'}", *found.lines])


def _answering(run: Path | None, client: Path | None, scenario: Path | None) -> tuple[Config, State]:
    """Return the models that answer: those of a run, those that were delivered to a site, or untouched ones."""
    from fedrag.runs.facts import require_same_models
    from fedrag.runs.run_folder import RunFolder
    from fedrag.site.delivery import open_current

    if client is not None:
        delivered = open_current(client)
        return delivered.config, delivered.state
    if run is None:
        return _config(scenario, None), {}
    finished = RunFolder.open(run)
    state = finished.load_result()
    require_same_models(finished)
    return finished.config, state


def _config(scenario: Path | None, generator: str | None) -> Config:
    """Return a scenario, or one of defaults, with another generator where one is named."""
    from fedrag.config.scenario import Config
    from fedrag.weights.store import find_model

    config = (
        Config.from_file(scenario)
        if scenario
        else Config.from_dict({"name": "defaults", "data": {"sites": "."}}, "defaults")
    )
    if generator is None:
        return config
    if find_model(generator).kind == "encoder":
        raise ConfigError(f'--model "{generator}" is an encoder, no language model; see: fedrag models list')
    return config.model_copy(update={"models": config.models.model_copy(update={"generator": generator})})


@contextmanager
def _writer(
    config: Config, models: RoundModels, endpoint: str | None, model: str, language: str, seed: int
) -> Iterator[QuestionWriter]:
    from fedrag.augmentation.question_wording import question_wording

    wording = question_wording(language)
    if endpoint is None:
        from fedrag.augmentation.local_writer import LocalWriter

        yield LocalWriter(models, config, wording, seed)
        return
    from fedrag.augmentation.endpoint_writer import EndpointWriter

    with EndpointWriter(endpoint, model, config.rag, wording, seed) as writer:
        yield writer


def _warn_of(endpoint: str, folder: Path) -> None:
    """Warn of an endpoint outside the house; a person is asked before anything is sent there."""
    from fedrag.augmentation.house_address import host_and_port, outside_addresses

    outside = outside_addresses(endpoint)
    if not outside:
        return
    host = f"{host_and_port(endpoint)[0]} ({', '.join(outside)})"
    typer.echo(
        f"Warning: {host} is neither this machine nor a private network: passages of {folder} would leave it.",
        err=True,
    )
    if sys.stdin.isatty():
        typer.confirm("Send them there?", abort=True)
