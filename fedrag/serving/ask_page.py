"""The pages on which people ask and review: all they need comes from here, and they send nothing anywhere else."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from fedrag.languages.catalogue import Words
from fedrag.languages.reader import accepted_language, wanted_language

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
    return _page("ask", language_of(request))


def review_page(request: Request) -> Response:
    """Return the page of those who review what people said; it holds nothing that only some may read."""
    return _page("review", language_of(request))


def file(request: Request) -> Response:
    """Return a file of the page."""
    name = request.url.path.removeprefix("/")
    return FileResponse(Path(__file__).with_name("templates") / name, media_type=FILES[name])


def language_of(request: Request) -> Words:
    """Return the language of FEDRAG_LANG, or the one that the browser prefers."""
    return wanted_language() or accepted_language(request.headers.get("accept-language", ""))


def _page(name: str, words: Words) -> Response:
    script_words = {
        **words.table("service.script"),
        **words.table(f"{name}.script"),
        "space": words.unfilled("marks.space"),
        "date": words.unfilled("marks.date"),
    }
    template = environment().get_template(f"{name}.html.jinja")
    return HTMLResponse(template.render(words=words, script_words=script_words), headers={"Vary": "Accept-Language"})


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
