"""The pages on which people ask and review: all they need comes from here, and they send nothing anywhere else."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

FILES = {
    "page.css": "text/css",
    "api.js": "text/javascript",
    "ask.js": "text/javascript",
    "passages.js": "text/javascript",
    "review.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


def page(request: Request) -> Response:
    """Return the page; it holds nothing that only some may read."""
    return HTMLResponse(environment().get_template("ask.html.jinja").render())


def review_page(request: Request) -> Response:
    """Return the page of those who review what people said; it holds nothing that only some may read."""
    return HTMLResponse(environment().get_template("review.html.jinja").render())


def file(request: Request) -> Response:
    """Return a file of the page."""
    name = request.url.path.removeprefix("/")
    return FileResponse(Path(__file__).with_name("templates") / name, media_type=FILES[name])


@cache
def environment() -> Environment:
    """Return what renders the pages of this room."""
    return Environment(
        loader=PackageLoader("fedrag.serving"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
