"""`/v1/embeddings` and `/search`: the trained retriever for other programs."""

from __future__ import annotations

import base64
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fedrag.errors import ConfigError
from fedrag.serving.chat import passage_rows
from fedrag.serving.model_names import require_model
from fedrag.serving.model_thread import ModelThread
from fedrag.serving.refusals import Refused
from fedrag.serving.request_fields import Body, choice_of, number_of, question_of, read_body, text_of
from fedrag.types import Array

MOST_TEXTS = 2048
MOST_PASSAGES = 100
_PASSAGES = 5


async def embed(request: Request, models: ModelThread) -> Response:
    """Return the vectors of texts; `input_type` says whether they are questions ("query") or passages."""
    body = await read_body(request)
    texts, form = _texts(body), choice_of(body, "encoding_format", ("float", "base64"))
    side = choice_of(body, "input_type", ("query", "passage"))
    require_model(body, models)
    served, vectors, tokens = await models.embed(texts, "query" if side == "query" else "passage")
    if body.get("dimensions") not in (None, vectors.shape[1]):
        raise Refused(400, f"dimensions: expected {vectors.shape[1]}, which the retriever has", "dimensions")
    rows = [
        {"object": "embedding", "index": row, "embedding": _written(vector, form)} for row, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "data": rows, "model": served.name, "usage": usage})


async def search(request: Request, models: ModelThread) -> Response:
    """Return the best passages for a question."""
    body = await read_body(request)
    question = question_of(text_of(body, "query"), "query")
    wanted = number_of(body, "passages", _PASSAGES, MOST_PASSAGES)
    try:
        served, found = await models.search(question, wanted)
    except ConfigError as error:
        raise Refused(400, str(error)) from None
    rows = [{name: told for name, told in row.items() if name != "is_given"} for row in passage_rows(found)]
    return JSONResponse({"site": served.answerer.site.name, "run": served.name, "passages": rows})


def _texts(body: Body) -> list[str]:
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise Refused(400, "input: expected a text or a list of texts", "input")
    if len(texts) > MOST_TEXTS:
        raise Refused(400, f"input: expected at most {MOST_TEXTS:,} texts", "input")
    return [question_of(text, "input") for text in texts]


def _written(vector: Array, form: str) -> Any:
    """Return a vector as a list of numbers, or as their bytes (float32, little-endian) in base64."""
    return vector.tolist() if form == "float" else base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
