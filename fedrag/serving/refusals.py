"""What a service refuses, told in one sentence and in the form of OpenAI's API."""

from __future__ import annotations

from starlette.responses import JSONResponse

_KINDS = {401: "authentication_error", 403: "permission_error", 500: "server_error", 503: "server_error"}


class Refused(Exception):
    """A request is refused.

    Args:
        status: HTTP status.
        sentence: What is wrong, and what was expected.
        param: The field that is wrong.
        code: A word for programs.
    """

    def __init__(self, status: int, sentence: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.param, self.code = status, sentence, param, code

    def response(self) -> JSONResponse:
        """Return the answer to the request."""
        kind = _KINDS.get(self.status, "invalid_request_error")
        error = {"message": self.sentence, "type": kind, "param": self.param, "code": self.code}
        headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "5"}}.get(self.status)
        return JSONResponse({"error": error}, self.status, headers)
