"""Who may ask: this machine's own people and programs, or those who have the token."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedrag.errors import ConfigError, FedragError, ModelError, StorageError
from fedrag.files import read_text_file
from fedrag.service.web import HEADERS
from fedrag.serving.refusals import Refused

FEWEST_CHARACTERS = 20

Say = Callable[[str], None]

_SENTENCES = {404: "there is nothing at this path", 405: "this path is not asked in this way"}


def read_token(path: Path) -> str:
    """Return the token of a file.

    Raises:
        ConfigError: The file cannot be read, others may read it, or it holds no token.
    """
    token = read_text_file(path, ConfigError, "no such file; make one with: openssl rand -hex 32").strip()
    if len(token) < FEWEST_CHARACTERS or not token.isascii() or len(token.split()) != 1:
        raise ConfigError(
            f"{path}: expected one word of at least {FEWEST_CHARACTERS} letters and digits, such as from: "
            "openssl rand -hex 32"
        )
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise ConfigError(f"{path}: other users may read it; protect it with: chmod 600 {path}")
    return token


@dataclass(frozen=True, slots=True)
class Tokens:
    """What requests must show.

    Attributes:
        asking: The token of those who ask; empty: none is asked for.
        reviewing: That of those who review feedback, who may ask too; empty: none is asked for; None: nobody reviews.
    """

    asking: str = ""
    reviewing: str | None = ""

    def of(self, path: str) -> frozenset[str]:
        """Return the tokens of which a request for a path must show one; empty: it need not."""
        if path.startswith("/review/"):
            return frozenset([self.reviewing]) if self.reviewing else frozenset()
        return frozenset(filter(None, (self.asking, self.reviewing))) if self.asking else frozenset()


def guarded(app: ASGIApp, hosts: Collection[str], tokens: Tokens, open_paths: Collection[str], say: Say) -> ASGIApp:
    """Return an app that admits nobody else, and sends the same strict headers with every answer.

    Args:
        app: What is guarded.
        hosts: Names and ports under which it is asked for; empty: any. Another site's name may have been made to point
            here; with a token that site gains nothing.
        tokens: What a request must show.
        open_paths: Paths that need no token.
        say: Takes a line for the operator, which never holds what was asked or answered.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            _admit(scope, hosts, frozenset() if scope["path"] in open_paths else tokens.of(scope["path"]))
            scope["app"] = app  # with it, a router raises where it finds nothing
            await app(scope, receive, send_with_headers)
        except ClientDisconnect:
            return
        except Exception as error:
            response = _refusal_of(error, say).response()
            response.headers.update(getattr(error, "headers", None) or {})
            if not begun:
                await response(scope, receive, send_with_headers)

    return answer


def _admit(scope: Scope, hosts: Collection[str], tokens: Collection[str]) -> None:
    headers = Headers(scope=scope)
    if hosts and headers.get("host", "").lower() not in hosts:
        raise Refused(421, f"this service answers to {' and '.join(sorted(hosts))} alone")
    from_elsewhere = headers.get("sec-fetch-site") in ("cross-site", "same-site")
    if from_elsewhere and headers.get("sec-fetch-mode") != "navigate":  # a link may lead here
        raise Refused(403, "another site's page may not ask this service")
    if tokens:
        shown = headers.get("authorization", "").removeprefix("Bearer ").encode("utf-8", "surrogatepass")
        if not any(hmac.compare_digest(shown, token.encode()) for token in tokens):
            raise Refused(401, "the token is missing or wrong; expected the header Authorization: Bearer TOKEN")


def _refusal_of(error: Exception, say: Say) -> Refused:
    """Return what is told of an error; of an unexpected one nothing but its place, and that to the operator alone."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, HTTPException):
        return Refused(error.status_code, _SENTENCES.get(error.status_code, error.detail))
    if isinstance(error, FedragError):
        # these two speak of files and models; others may quote what was asked
        told = error if isinstance(error, ModelError | StorageError) else type(error).__name__
        say(f"a request could not be answered: {told}")
        return Refused(500, "the request could not be answered; the service's terminal says why")
    place = extract_tb(error.__traceback__)[-1]
    say(f"a request failed: {type(error).__name__} in {Path(place.filename).name}, line {place.lineno}")
    return Refused(500, "the request failed; the service's terminal says where")
