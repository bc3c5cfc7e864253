"""Who may ask the console: people and its own page to look, and those who show the token to change things."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedrag.coordinator.console_token import is_token
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.errors import FedragError
from fedrag.service.web import HEADERS

ACTS_PATH = "/acts/"


def guarded(app: ASGIApp, folder: ServerFolder, hosts: Collection[str]) -> ASGIApp:
    """Admit only what comes from a page of ours, or a person, under a name of this machine.

    Args:
        app: The pages, and the acts below `ACTS_PATH`.
        folder: The coordinator's folder, which holds the token.
        hosts: The names and ports under which browsers may ask.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refused = _refused(scope, hosts) or (_refused_act(scope, folder) if scope["method"] == "POST" else None)
        await (refused or app)(scope, receive, send_with_headers)

    return answer


def refusal(status: int, sentence: str) -> Response:
    """Return a sentence as an answer."""
    return PlainTextResponse(f"{sentence}\n", status)


def _refused(scope: Scope, hosts: Collection[str]) -> Response | None:
    """Return the answer to a request that is refused, or None."""
    headers = Headers(scope=scope)
    if headers.get("host", "").lower() not in hosts:  # another site's name may have been made to point here
        return refusal(421, f"this console answers to {' and '.join(sorted(hosts))} alone")
    allowed = "POST" if scope["path"].startswith(ACTS_PATH) else "GET"
    if scope["method"] != allowed:
        return PlainTextResponse(f"this path answers to {allowed} alone\n", 405, {"Allow": allowed})
    from_elsewhere = headers.get("sec-fetch-site") in ("cross-site", "same-site")
    if from_elsewhere and headers.get("sec-fetch-mode") != "navigate":  # a link may lead here
        return refusal(403, "another site's page may not read this console")
    return None


def _refused_act(scope: Scope, folder: ServerFolder) -> Response | None:
    """Return the answer to an act that is refused, or None.

    A browser names the page that asks, and no page can change that. The token is no cookie: only our page sends it.
    """
    headers = Headers(scope=scope)
    own = f"http://{headers['host'].lower()}"
    if headers.get("origin") != own or headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return refusal(403, "only the console's own page may change things")
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return refusal(415, "expected JSON")
    shown = headers.get("authorization", "")
    try:
        if shown.startswith("Bearer ") and is_token(folder, shown.removeprefix("Bearer ")):
            return None
    except FedragError as error:
        return refusal(401, str(error))
    return refusal(401, f"the token is missing or wrong; to see it: fedrag server token {folder.path}")
