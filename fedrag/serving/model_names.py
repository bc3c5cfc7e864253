"""`/v1/models`: what the models are called that answer here."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fedrag.serving.model_thread import ModelThread, Served
from fedrag.serving.refusals import Refused
from fedrag.serving.request_fields import Body, text_of

IN_USE = "fedrag"
"""Name of whatever models answer now: a client that asks for it need not be told of new ones."""


async def list_models(request: Request, models: ModelThread) -> Response:
    """List the models, or show one of them."""
    served = models.served
    rows = [
        {"id": name, "object": "model", "created": 0, "owned_by": served.answerer.site.name} for name in _names(served)
    ]
    name = request.path_params.get("name")
    if name is None:
        return JSONResponse({"object": "list", "data": rows})
    _require(name, served)
    return JSONResponse(next(row for row in rows if row["id"] == name))


def require_model(body: Body, models: ModelThread) -> None:
    """Refuse a request for a model that does not answer here.

    Raises:
        Refused: It names none, or another.
    """
    _require(text_of(body, "model"), models.served)


def _require(name: str, served: Served) -> None:
    if name not in _names(served):
        there = " and ".join(repr(known) for known in _names(served))
        raise Refused(404, f"model: there is none of this name; there are {there}", "model", "model_not_found")


def _names(served: Served) -> list[str]:
    return list(dict.fromkeys([IN_USE, served.name]))
