"""The coordinator's console: a read-only page about sites and runs, for this machine alone.

The server renders the page section by section; an event stream sends a section again when it has changed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedrag.coordinator.console_page import render_page, render_sections
from fedrag.coordinator.jobs import run_names
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.service.stopping import Stop, stop_on_signals
from fedrag.service.web import HEADERS, LOOPBACK, listen, quiet_server

TICK_S = 1.0
HEARTBEAT_S = 15.0  # a closed browser may show only when something is sent to it
MOST_CONNECTIONS = 50

FILES = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}


def serve_console(folder: ServerFolder, port: int, say: Callable[[str], None]) -> None:
    """Show the console until Ctrl-C or SIGTERM.

    Args:
        folder: The coordinator's folder; the coordinator itself need not run.
        port: A port of 127.0.0.1.
        say: Takes a line for the operator.

    Raises:
        ServiceError: The port cannot be used.
    """
    listener, server = listen(LOOPBACK, port), console_server(folder, port)
    stop_on_signals()
    try:
        say(f"the console is at http://{LOOPBACK}:{port}/ for everyone who works on this machine; Ctrl-C stops it")
        server.run(sockets=[listener])
    except Stop:
        say("the console stops")


def console_server(folder: ServerFolder, port: int) -> uvicorn.Server:
    """Return the console as a server, to be run on a socket of 127.0.0.1.

    Args:
        folder: The coordinator's folder.
        port: The port that browsers name in their requests.
    """

    def stopping() -> bool:  # asked by the open streams, once the server below runs
        return server.should_exit

    pages = _pages(folder, stopping)
    server = quiet_server(_guarded(pages, {f"{LOOPBACK}:{port}", f"localhost:{port}"}), MOST_CONNECTIONS)
    return server


def _pages(folder: ServerFolder, stopping: Callable[[], bool]) -> ASGIApp:
    """Return the page, its files and its event stream, which ends when `stopping` says so."""

    def chosen_run(request: Request) -> str | None:
        """Return the requested run, "" for the newest, or None where it does not exist."""
        name = request.query_params.get("run", "")
        return name if not name or name in run_names(folder) else None

    def page(request: Request) -> Response:
        run = chosen_run(request)
        return _refusal(404, "there is no such run") if run is None else HTMLResponse(render_page(folder, run))

    def file(request: Request) -> Response:
        name = request.url.path.removeprefix("/")
        return FileResponse(Path(__file__).with_name("templates") / name, media_type=FILES[name])

    def events(request: Request) -> Response:
        run = chosen_run(request)
        if run is None:
            return _refusal(404, "there is no such run")
        return StreamingResponse(_events(folder, run, stopping), media_type="text/event-stream")

    routes = [Route("/", page), Route("/events", events), *(Route(f"/{name}", file) for name in FILES)]
    return Starlette(routes=routes)


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


def _guarded(app: ASGIApp, hosts: set[str]) -> ASGIApp:
    """Admit only GET requests by a page of ours, or a person, under a name of this machine."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await (_refused(scope, hosts) or app)(scope, receive, send_with_headers)

    return answer


def _refused(scope: Scope, hosts: set[str]) -> Response | None:
    """Return the answer to a request that is refused, or None."""
    headers = Headers(scope=scope)
    if headers.get("host", "").lower() not in hosts:  # another site's name may have been made to point here
        return _refusal(421, f"this console answers to {' and '.join(sorted(hosts))} alone")
    if scope["method"] != "GET":
        return PlainTextResponse("this console is read-only\n", 405, {"Allow": "GET"})
    from_elsewhere = headers.get("sec-fetch-site") in ("cross-site", "same-site")
    if from_elsewhere and headers.get("sec-fetch-mode") != "navigate":  # a link may lead here
        return _refusal(403, "another site's page may not read this console")
    return None


def _refusal(status: int, sentence: str) -> Response:
    return PlainTextResponse(f"{sentence}\n", status)
