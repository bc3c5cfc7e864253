"""Reads the fields of a request's JSON body; what is wrong with one is told in one sentence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from fedrag.errors import ConfigError
from fedrag.evaluation.answerer import checked_question
from fedrag.serving.refusals import Refused

MOST_BYTES = 2_000_000

Body = dict[str, Any]


async def read_body(request: Request) -> Body:
    """Return the JSON object of a request.

    Raises:
        Refused: There is none, or it is too large.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        # a page of another site can send any other type without asking first
        raise Refused(415, "the request is no JSON; expected the header Content-Type: application/json")
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > MOST_BYTES:
            raise Refused(413, f"the request is too large; expected at most {MOST_BYTES:,} bytes")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused(400, "the request is not valid JSON") from None
    if not isinstance(body, dict):
        raise Refused(400, "the request is not a JSON object")
    return body


def text_of(body: Body, name: str, default: str | None = None) -> str:
    """Return a text; `default` where there is none.

    Raises:
        Refused: It is missing, or no text.
    """
    value = body.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise Refused(400, f"{name}: {'missing' if value is None else 'is no text'}; expected a text", name)
    return value


def choice_of(body: Body, name: str, choices: Sequence[str]) -> str:
    """Return one of some words; the first where there is none.

    Raises:
        Refused: It is another.
    """
    value = text_of(body, name, choices[0])
    if value not in choices:
        raise Refused(400, f"{name}: expected {' or '.join(map(repr, choices))}", name)
    return value


def number_of(body: Body, name: str, default: int, most: int) -> int:
    """Return a whole number from 1 up to `most`.

    Raises:
        Refused: It is none.
    """
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise Refused(400, f"{name}: expected a whole number from 1 to {most:,}", name)
    return value


def texts_of(body: Body, name: str, default: Sequence[str] | None = None) -> list[str]:
    """Return a list of texts; `default` where there is none.

    Raises:
        Refused: It is missing, or none.
    """
    value = body.get(name)
    if value is None and default is not None:
        return list(default)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refused(400, f"{name}: expected a list of texts", name)
    return value


def question_of(text: str, name: str) -> str:
    """Return a question as it is asked.

    Raises:
        Refused: It is blank, or no tokenizer can read it.
    """
    try:
        return checked_question(text)
    except ConfigError as error:
        raise Refused(400, f"{name}: {error}", name) from None
