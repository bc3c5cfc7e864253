"""The coordinator's console: a page about sites and runs, and what can be done with them, for this machine alone.

The server renders the page section by section; an event stream sends a section again when it has changed. What changes
things is asked with POST below /acts/.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from fedrag.coordinator.console_acts import ACTS, perform, scenario_names
from fedrag.coordinator.console_guard import ACTS_PATH, guarded, refusal
from fedrag.coordinator.console_page import render_page, render_sections
from fedrag.coordinator.jobs import run_names
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.errors import ConfigError, FedragError
from fedrag.service.stopping import Stop, stop_on_signals
from fedrag.service.web import LOOPBACK, listen, quiet_server
from fedrag.text import size_text

Say = Callable[[str], None]

TICK_S = 1.0
HEARTBEAT_S = 15.0  # a closed browser may show only when something is sent to it
MOST_CONNECTIONS = 50
MOST_BYTES = 256 * 1024  # of an act, which may bring the text of a scenario

FILES = {
    "console.css": "text/css",
    "acts.css": "text/css",
    "console.js": "text/javascript",
    "acts.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


def serve_console(folder: ServerFolder, port: int, say: Say) -> None:
    """Show the console until Ctrl-C or SIGTERM.

    Args:
        folder: The coordinator's folder; the coordinator itself need not run.
        port: A port of 127.0.0.1.
        say: Takes a line for the operator.

    Raises:
        ServiceError: The port cannot be used.
    """
    listener, server = listen(LOOPBACK, port), console_server(folder, port, say)
    stop_on_signals()
    try:
        say(f"the console is at http://{LOOPBACK}:{port}/ for everyone who works on this machine; Ctrl-C stops it")
        server.run(sockets=[listener])
    except Stop:
        say("the console stops")


def console_server(folder: ServerFolder, port: int, say: Say = lambda line: None) -> uvicorn.Server:
    """Return the console as a server, to be run on a socket of 127.0.0.1.

    Args:
        folder: The coordinator's folder.
        port: The port that browsers name in their requests.
        say: Takes a line for the operator: who did what.
    """

    def stopping() -> bool:  # asked by the open streams, once the server below runs
        return server.should_exit

    hosts = {f"{LOOPBACK}:{port}", f"localhost:{port}"}
    server = quiet_server(guarded(_pages(folder, stopping, say), folder, hosts), MOST_CONNECTIONS)
    return server


def _pages(folder: ServerFolder, stopping: Callable[[], bool], say: Say) -> ASGIApp:
    """Return the page, its files, its event stream, which ends when `stopping` says so, and the acts."""

    def chosen_run(request: Request) -> str | None:
        """Return the requested run, "" for the newest, or None where it does not exist."""
        name = request.query_params.get("run", "")
        return name if not name or name in run_names(folder) else None

    def page(request: Request) -> Response:
        run = chosen_run(request)
        if run is None:
            return refusal(404, "there is no such run")
        return HTMLResponse(render_page(folder, run, scenario_names(folder)))

    def file(request: Request) -> Response:
        name = request.url.path.removeprefix("/")
        return FileResponse(Path(__file__).with_name("templates") / name, media_type=FILES[name])

    def events(request: Request) -> Response:
        run = chosen_run(request)
        if run is None:
            return refusal(404, "there is no such run")
        return StreamingResponse(_events(folder, run, stopping), media_type="text/event-stream")

    files = [Route(f"/{name}", file) for name in FILES]
    return Starlette(routes=[Route("/", page), Route("/events", events), *files, *_acts(folder, say)])


def _acts(folder: ServerFolder, say: Say) -> list[Route]:
    """Return the routes of the acts, to which the guard admits only those who show the token."""

    def unlock(request: Request) -> Response:
        return Response(status_code=204)

    async def act(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ACTS:
            return refusal(404, "there is no such act")
        try:
            told = await run_in_threadpool(perform, folder, ACTS[name], await _fields(request))
        except FedragError as error:
            return refusal(400, str(error))
        if done := told.get("done"):
            say(f"{getpass.getuser()}, in the console: {done}")
        return JSONResponse(told)

    paths = {"unlock": unlock, "{name}": act}
    return [Route(f"{ACTS_PATH}{path}", answer, methods=["POST"]) for path, answer in paths.items()]


async def _events(folder: ServerFolder, run: str, stopping: Callable[[], bool]) -> AsyncIterator[str]:
    """Yield the sections that have changed, as a JSON object of HTML by name; all of them first."""
    shown: dict[str, str] = {}
    sent = time.monotonic()
    while not stopping():
        sections = await run_in_threadpool(render_sections, folder, run)
        changed = {name: html for name, html in sections.items() if shown.get(name) != html}
        if changed or time.monotonic() - sent > HEARTBEAT_S:
            yield f"data: {json.dumps(changed)}\n\n"
            shown, sent = sections, time.monotonic()
        await asyncio.sleep(TICK_S)


async def _fields(request: Request) -> dict[str, str]:
    """Return what came with an act.

    Raises:
        ConfigError: It is no JSON object of texts, or too large.
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise ConfigError(f"the request is larger than {size_text(MOST_BYTES)}")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):  # also of bytes that are no text
        fields = None
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise ConfigError("expected a JSON object of texts")
    return fields
