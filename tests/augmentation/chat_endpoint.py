"""A real HTTP server that answers as OpenAI's chat completions do."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

Answer = Callable[[str, str], str]
"""Returns the reply to (system message, user message)."""


class Endpoint:
    """What the server was asked, and how it answers next.

    Attributes:
        url: Its address, with /v1.
        asked: The bodies of the chat requests.
        keys: Their Authorization headers.
        faults: Replies to give instead, one a request, before it answers again.
        delay_s: Time that it takes over a reply.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.url = ""
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.faults: list[Response] = []
        self.delay_s = 0.0

    async def models(self, request: Request) -> Response:
        return JSONResponse({"data": [{"id": "house-model"}, {"id": "other"}]})

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        self.keys.append(request.headers.get("authorization", ""))
        await asyncio.sleep(self.delay_s)
        if self.faults:
            return self.faults.pop(0)
        system, user = (message["content"] for message in body["messages"])
        text = self._answer(system, user)
        return JSONResponse({"choices": [{"message": {"role": "assistant", "content": text}}]})


@contextmanager
def served(answer: Answer) -> Iterator[Endpoint]:
    """Serve an endpoint on a free port of 127.0.0.1."""
    endpoint = Endpoint(answer)
    routes = [
        Route("/v1/models", endpoint.models),
        Route("/v1/chat/completions", endpoint.chat, methods=["POST"]),
    ]
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    endpoint.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield endpoint
    finally:
        server.should_exit = True
        thread.join()


def redirect(to: str, status: int = 307) -> Response:
    return RedirectResponse(to, status)


def failure(status: int, content: Any = None) -> Response:
    return JSONResponse(content or {"error": "no"}, status)
