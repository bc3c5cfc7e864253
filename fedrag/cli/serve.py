"""`fedrag serve`, `fedrag client serve`: let people and programs ask a trained system."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedrag.text import printable

Port = Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")]
Host = Annotated[
    str,
    typer.Option(help="Address of this machine to listen at; one that other machines reach needs --token-file."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="File with the token that every request must show."),
]
ReviewTokenFile = Annotated[
    Path | None,
    typer.Option(
        "--review-token-file",
        metavar="FILE",
        help="File with the token of those who review feedback at /review; with --token-file alone, nobody does there.",
    ),
]
LOADING = "Loading the models and indexing the passages ..."
PORT = 8100
HOST = "127.0.0.1"


def serve(
    data: Annotated[Path, typer.Option("--data", metavar="SITE", help="Site whose passages to search.")],
    run: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of a finished run, or a scenario file, whose models then answer untouched; without it, "
            "the standard models do.",
            show_default=False,
        ),
    ] = None,
    port: Port = PORT,
    host: Host = HOST,
    token_file: TokenFile = None,
    review_token_file: ReviewTokenFile = None,
) -> None:
    """Answer questions in a browser and as an API until Ctrl-C.

    Example: fedrag serve runs/tiny-1 --data simulations/data/tiny/north --port 8100

    The page is at http://127.0.0.1:8100/, the API, which is OpenAI's, at http://127.0.0.1:8100/v1. What people say
    about answers goes into feedback.sqlite in the site's folder.
    """
    with Console(stderr=True).status(LOADING):
        from fedrag.evaluation.ask import only_site
        from fedrag.serving.answer_service import serve_answers
        from fedrag.serving.model_thread import ModelThread
        from fedrag.serving.sources import open_served

    folder = only_site(data)

    def load() -> ModelThread:
        with Console(stderr=True).status(LOADING):
            served = open_served(run, folder)
        return ModelThread(lambda: served)

    serve_answers(load, folder, host, port, token_file, review_token_file, say)


def client_serve(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.", show_default=False)],
    port: Port = PORT,
    host: Host = HOST,
    token_file: TokenFile = None,
    review_token_file: ReviewTokenFile = None,
) -> None:
    """Answer questions with the site's current models, in a browser and as an API, until Ctrl-C.

    Example: fedrag client serve clinic --port 8100

    The page is at http://127.0.0.1:8100/, the API, which is OpenAI's, at http://127.0.0.1:8100/v1. New models answer
    as soon as they are in use. What people say about answers goes into feedback.sqlite in the folder of the site's
    data.
    """
    from fedrag.site.site_config import SITE_FILE, SiteConfig, choose_device

    config = SiteConfig.from_file(folder / SITE_FILE)
    choose_device(config)
    with Console(stderr=True).status(LOADING):
        from fedrag.serving.answer_service import serve_answers
        from fedrag.serving.model_thread import ModelThread
        from fedrag.serving.sources import DeliveredModels

    def load() -> ModelThread:
        with Console(stderr=True).status(LOADING):
            return ModelThread(DeliveredModels(folder, config, say))

    serve_answers(load, Path(config.data), host, port, token_file, review_token_file, say)


def say(line: str) -> None:
    """Print a line with its time."""
    typer.echo(f"{datetime.now():%Y-%m-%d %H:%M:%S} {printable(line)}")
