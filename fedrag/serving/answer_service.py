"""The service that answers: its paths, and how it listens."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from fedrag.data.feedback_store import FeedbackStore
from fedrag.errors import ConfigError
from fedrag.languages.reader import wanted_language
from fedrag.service.stopping import Stop, stopped_by_signals
from fedrag.service.web import LOOPBACK, is_loopback, listen, quiet_server
from fedrag.serving.ask_page import FILES, file, page, review_page
from fedrag.serving.chat import complete
from fedrag.serving.feedback import take_feedback
from fedrag.serving.guard import Say, Tokens, guarded, read_token
from fedrag.serving.model_names import list_models
from fedrag.serving.model_thread import ModelThread
from fedrag.serving.review import decide, list_rows
from fedrag.serving.vectors import embed, search
from fedrag.text import host_and_port
from fedrag.types import Site

MOST_CONNECTIONS = 300

Endpoint = Callable[[Request, ModelThread], Awaitable[Response]]

PATHS: dict[str, tuple[str, Endpoint]] = {
    "/v1/models": ("GET", list_models),
    "/v1/models/{name:path}": ("GET", list_models),
    "/v1/chat/completions": ("POST", complete),
    "/v1/embeddings": ("POST", embed),
    "/search": ("POST", search),
}
"""What models answer."""


def serve_answers(
    models: Callable[[], ModelThread],
    feedback: Path,
    host: str,
    port: int,
    token_file: Path | None,
    review_token_file: Path | None,
    say: Say,
) -> None:
    """Answer until Ctrl-C or SIGTERM.

    Args:
        models: Loads the models that answer, once the port is taken.
        feedback: The site's data folder, which keeps what people say about answers.
        host: The address of this machine to listen at.
        port: The port.
        token_file: The file of the token that every request must show; None: no token, and this machine alone.
        review_token_file: The file of the token of those who review feedback; None: where no token is asked for,
            everyone reviews, else nobody does.
        say: Takes a line for the operator.

    Raises:
        ConfigError: Other machines would reach the service and there is no token, or the token is none; or FEDRAG_LANG
            names no language of fedrag.
        ServiceError: The port cannot be used.
    """
    if token_file is None and not is_loopback(host):
        raise ConfigError(f"--host {host}: other machines would reach the service; name a token with --token-file FILE")
    wanted_language()  # told here, not to those who ask
    token = read_token(token_file) if token_file else ""
    reviewing = read_token(review_token_file) if review_token_file else None if token else ""
    listener = listen(host, port)
    thread = None
    with stopped_by_signals():
        try:
            thread = models()
            site, told = thread.served.answerer.site.name, "has the token" if token else "works on this machine"
            say(f"{thread.served.name} answers for {site} at {address(host, port)}: for everyone who {told}")
            if not is_loopback(host):
                say("questions, answers and the token cross the network unencrypted: put a proxy with TLS in front")
            tokens = Tokens(token, reviewing)
            answer_server(thread, FeedbackStore(feedback), host, port, tokens, say).run(sockets=[listener])
        except Stop:
            say("the service stops")
        finally:
            listener.close()
            if thread is not None:
                thread.end()


def answer_server(
    models: ModelThread, store: FeedbackStore, host: str, port: int, tokens: Tokens, say: Say
) -> uvicorn.Server:
    """Return the service as a server, to be run on a socket at this address."""
    logging.getLogger("uvicorn.error").addHandler(logging.NullHandler())  # a traceback may hold what was asked
    hosts = {f"{LOOPBACK}:{port}", f"localhost:{port}", f"[::1]:{port}"} if is_loopback(host) else set()
    open_paths = {"/", "/review", "/health", *(f"/{name}" for name in FILES)}
    paths = _paths(models, store, with_review=tokens.reviewing is not None)
    return quiet_server(guarded(paths, hosts, tokens, open_paths, say), MOST_CONNECTIONS)


def address(host: str, port: int) -> str:
    """Return the address for a browser.

    >>> address("0.0.0.0", 80), address("::1", 80)
    ('http://0.0.0.0:80/', 'http://[::1]:80/')
    """
    return f"http://{host_and_port(host, port)}/"


def _paths(models: ModelThread, store: FeedbackStore, with_review: bool) -> ASGIApp:
    def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def feedback(request: Request) -> Response:
        known = frozenset(passage.id for passage in site().passages)
        return await take_feedback(request, store, known)

    async def rows(request: Request) -> Response:
        return await list_rows(request, store, site())

    async def decision(request: Request) -> Response:
        return await decide(request, store, site())

    def site() -> Site:
        return models.served.answerer.site

    def bound(endpoint: Endpoint) -> Any:
        async def answer(request: Request) -> Response:
            return await endpoint(request, models)

        return answer

    routes = [
        Route("/", page),
        Route("/health", health),
        Route("/feedback", feedback, methods=["POST"]),
        *(Route(path, bound(endpoint), methods=[method]) for path, (method, endpoint) in PATHS.items()),
        *(Route(f"/{name}", file) for name in FILES),
    ]
    if with_review:
        routes += [
            Route("/review", review_page),
            Route("/review/rows", rows),
            Route("/review/rows/{id}", decision, methods=["POST"]),
        ]
    return Router(routes, redirect_slashes=False)
