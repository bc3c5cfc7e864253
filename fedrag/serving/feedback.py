"""`/feedback`: what people say about answers goes into the site's own file; who they are is not asked."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fedrag.data.feedback_row import Feedback
from fedrag.data.feedback_store import FeedbackStore
from fedrag.errors import DataError
from fedrag.serving.refusals import Refused
from fedrag.serving.request_fields import Body, choice_of, question_of, read_body, text_of, texts_of

_MOST_IDS = 100


async def take_feedback(request: Request, store: FeedbackStore, known: frozenset[str]) -> Response:
    """Store what a person said about one answer.

    Args:
        request: The request.
        store: The site's feedback.
        known: Ids of the site's passages.
    """
    body = await read_body(request)
    shown, right_ids, wrong_ids = (_ids(body, name, known) for name in ("shown", "right_ids", "wrong_ids"))
    text_of(body, "verdict")  # it has no default
    verdict = choice_of(body, "verdict", ("right", "wrong"))
    feedback = Feedback(
        question=question_of(text_of(body, "question"), "question"),
        answer=text_of(body, "answer"),
        verdict="right" if verdict == "right" else "wrong",
        correction=text_of(body, "correction", "").strip(),
        shown=shown,
        right_ids=right_ids,
        wrong_ids=wrong_ids,
    )
    try:
        identity = await run_in_threadpool(store.add, feedback)
    except DataError as error:
        raise Refused(400, str(error)) from None
    return JSONResponse({"id": identity}, 201)


def _ids(body: Body, name: str, known: frozenset[str]) -> tuple[str, ...]:
    ids = tuple(dict.fromkeys(texts_of(body, name, ())))
    if len(ids) > _MOST_IDS or not known.issuperset(ids):
        raise Refused(400, f"{name}: expected ids of this site's passages, at most {_MOST_IDS}", name)
    return ids
