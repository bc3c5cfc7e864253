"""`/v1/chat/completions`: the last user message is the question; passages and sources stand in the reply."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from fedrag.evaluation.answerer import Found, RagAnswer
from fedrag.serving.model_names import require_model
from fedrag.serving.model_thread import Asked, ModelThread, Served
from fedrag.serving.refusals import Refused
from fedrag.serving.request_fields import Body, question_of, read_body

OWN_KEY = "fedrag"
"""The key of a reply under which stands what OpenAI's API does not know."""

# What asks for another kind of reply; sampling settings change nothing, since the likeliest answer is given.
_UNSUPPORTED = ("tools", "functions", "logprobs", "audio")


async def complete(request: Request, models: ModelThread) -> Response:
    """Answer a chat."""
    body = await read_body(request)
    streamed, question = _read(body)
    require_model(body, models)
    asked = models.ask(question)
    head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": models.served.name}
    if streamed:
        return StreamingResponse(_events(head, asked, _with_usage(body)), media_type="text/event-stream")
    served, reply = await asked.reply
    message = {"role": "assistant", "content": reply.answer, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": _finish(reply), "logprobs": None}
    own = {"object": "chat.completion", "choices": [choice], "usage": _usage(reply), OWN_KEY: _own(served, reply)}
    return JSONResponse(head | own | {"model": served.name})


def passage_rows(found: tuple[Found, ...]) -> list[dict[str, Any]]:
    """Return passages as JSON objects, best first."""
    return [
        {
            "id": one.passage.id,
            "title": one.passage.title,
            "text": one.passage.text,
            "source": one.passage.source,
            "score": one.score,
            "is_given": one.is_given,
        }
        for one in found
    ]


async def _events(head: dict[str, Any], asked: Asked, usage: bool) -> AsyncIterator[str]:
    """Yield an answer as it is written, as the events of a stream; passages and sources stand in the last choice."""

    def event(choices: list[dict[str, Any]], **more: Any) -> str:
        chunk = head | {"object": "chat.completion.chunk", "choices": choices} | more
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"

    def choice(delta: dict[str, Any], finish: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]

    try:
        yield event(choice({"role": "assistant", "content": ""}))
        sent = ""
        while (text := await asked.texts.get()) is not None:
            words = whole_words(text)
            if words.startswith(sent) and words != sent:
                yield event(choice({"content": words[len(sent) :]}))
                sent = words
        served, reply = await asked.reply
        yield event(choice({"content": reply.answer[len(sent) :]}))
        yield event(choice({}, _finish(reply)), **{OWN_KEY: _own(served, reply)})
        if usage:
            yield event([], usage=_usage(reply))
        yield "data: [DONE]\n\n"
    finally:
        asked.reply.cancel()  # whoever has gone away waits for no answer; one that is there stays


def whole_words(text: str) -> str:
    """Return the beginning of an answer that further tokens do not change.

    The next token may go on with the last word, complete its last character, or take the space before it away.

    >>> whole_words("two coins a we"), whole_words("two")
    ('two coins a', '')
    """
    found = re.match(r".*(?=\s)", text, re.DOTALL)
    return found[0] if found else ""


def _read(body: Body) -> tuple[bool, str]:
    """Return whether a chat asks for a stream, and its question."""
    for name in _UNSUPPORTED:
        if body.get(name):
            raise Refused(400, f"{name}: is not supported; this service answers questions from its passages", name)
    if body.get("n") not in (None, 1):
        raise Refused(400, "n: expected 1; there is one answer, the likeliest", "n")
    wanted = body.get("response_format")
    if wanted is not None and (not isinstance(wanted, dict) or wanted.get("type") != "text"):
        raise Refused(400, 'response_format: expected {"type": "text"}', "response_format")
    streamed = body.get("stream")
    if streamed not in (None, True, False):
        raise Refused(400, "stream: expected true or false", "stream")
    return bool(streamed), question_of(_last_user_message(body), "messages")


def _last_user_message(body: Body) -> str:
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise Refused(400, "messages: expected a list of messages", "messages")
    asked = [message.get("content") for message in messages if message.get("role") == "user"]
    if not asked:
        raise Refused(400, "messages: expected at least one with the role 'user', which is the question", "messages")
    content = asked[-1]
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "\n".join(str(part.get("text")) for part in content)
    if not isinstance(content, str):
        raise Refused(400, "messages: the content of the last user message is no text", "messages")
    return content


def _with_usage(body: Body) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


def _finish(reply: RagAnswer) -> str:
    return "length" if reply.is_cut else "stop"


def _usage(reply: RagAnswer) -> dict[str, int]:
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.answer_tokens,
        "total_tokens": reply.prompt_tokens + reply.answer_tokens,
    }


def _own(served: Served, reply: RagAnswer) -> dict[str, Any]:
    return {
        "site": served.answerer.site.name,
        "run": served.name,
        "passages": passage_rows(reply.found),
        "unread_tokens": reply.unread_tokens,
    }
