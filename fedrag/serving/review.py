"""`/review/rows`: what people said about answers, and what a reviewer decides about it."""

from __future__ import annotations

from typing import Any, get_args

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fedrag.data.feedback_review import counts_text, passages_beside
from fedrag.data.feedback_row import Feedback, State
from fedrag.data.feedback_store import FeedbackStore
from fedrag.errors import DataError
from fedrag.serving.ask_page import language_of
from fedrag.serving.refusals import Refused
from fedrag.serving.request_fields import choice_of, read_body, text_of, texts_of
from fedrag.types import Passage, Site

MOST_ROWS = 50
"""Rows on a page; the next come when these are decided."""
_MOST_IDS = 100


async def list_rows(request: Request, store: FeedbackStore, site: Site) -> Response:
    """List the rows that nobody reviewed, or with `?all=1` those that are no training questions yet, oldest first."""
    rows, passages = await run_in_threadpool(store.rows), _passages(site)
    everything = request.query_params.get("all") == "1"
    wanted = [row for row in rows if not row.exported and (everything or row.state == "new")]
    shown = [_shown(row, passages) for row in wanted[:MOST_ROWS]]
    counts = counts_text(rows, language_of(request)) if rows else ""
    return JSONResponse({"site": site.name, "rows": shown, "waiting": len(wanted), "counts": counts})


async def decide(request: Request, store: FeedbackStore, site: Site) -> Response:
    """Write down a decision about one row; return the row as it is now, and the new counts."""
    passages = _passages(site)
    body = await read_body(request)
    text_of(body, "state")  # it has no default
    state = choice_of(body, "state", get_args(State))
    correction = text_of(body, "correction") if "correction" in body else None
    right_ids = texts_of(body, "right_ids") if "right_ids" in body else None
    if right_ids is not None and (len(right_ids) > _MOST_IDS or not passages.keys() >= set(right_ids)):
        raise Refused(400, f"right_ids: expected ids of this site's passages, at most {_MOST_IDS}", "right_ids")

    def review() -> tuple[Feedback, str]:
        decided: State = next(known for known in get_args(State) if known == state)
        row = store.review(request.path_params["id"], decided, correction, right_ids)
        return row, counts_text(store.rows(), language_of(request))

    try:
        row, counts = await run_in_threadpool(review)
    except DataError as error:
        raise Refused(409, str(error)) from None
    return JSONResponse(_shown(row, passages) | {"counts": counts})


def _passages(site: Site) -> dict[str, Passage]:
    return {passage.id: passage for passage in site.passages}


def _shown(row: Feedback, passages: dict[str, Passage]) -> dict[str, Any]:
    """Return a row as a JSON object, with the texts of its passages."""
    return {
        "id": row.id,
        "day": row.day,
        "question": row.question,
        "answer": row.answer,
        "verdict": row.verdict,
        "right_answer": row.right_answer,
        "state": row.state,
        "passages": [
            {
                "id": beside.passage.id,
                "title": beside.passage.title,
                "text": beside.passage.text,
                "source": beside.passage.source,
                "is_right": beside.is_right,
                "is_wrong": beside.is_wrong,
                "holds_answer": beside.holds_answer,
            }
            for beside in passages_beside(row, passages)
        ],
    }
