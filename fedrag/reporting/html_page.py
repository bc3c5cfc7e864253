"""Fills a self-contained HTML page, in one language, or in several between which its reader's browser chooses.

A file that is opened from a disk is sent by nobody who could be asked for a language. So a page in several languages
holds each whole, and a few lines of script show the one that the browser prefers; without scripts that is the first.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedrag.languages.catalogue import Words
from fedrag.reporting.verdict import percent
from fedrag.reporting.what_ran import duration


def fill_page(template: str, languages: Sequence[Words], content_in: Callable[[Words], Mapping[str, Any]]) -> str:
    """Return a page as HTML text.

    Args:
        template: File name of the template of what stands on it.
        languages: Its languages, at least one; the first is shown where the browser cannot choose.
        content_in: Returns in a language the page's `title`, and a value for every other name that the template uses.
    """
    environment = Environment(
        loader=PackageLoader("fedrag.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    versions = []
    for words in languages:
        environment.filters |= {
            "percent": partial(percent, words=words),
            "duration": partial(duration, words=words),
            "size": words.size,
            "whole": words.whole,
        }
        content = content_in(words)
        body = environment.get_template(template).render(content, words=words)
        versions.append({"words": words, "title": content["title"], "body": body})
    script = environment.get_template("languages.js").render() if len(versions) > 1 else ""
    allowed = b64encode(sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html.jinja").render(versions=versions, script=script, allowed=allowed)
