"""A site whose texts and whose name try to break out of the page."""

from __future__ import annotations

from dataclasses import replace

from tiny_federation import small_site

from fedrag.types import Site

HOSTILE_NAME = "a <b> & $x$"
SCRIPT = "<script>document.title = 'broken out'</script>"


def hostile_site() -> Site:
    site = small_site(HOSTILE_NAME, "north", train=2, test=4)
    passages = tuple(replace(p, text=f"{SCRIPT} {p.text}", title=f"{p.title} {SCRIPT}") for p in site.passages)
    test = tuple(replace(q, question=f"{SCRIPT} {q.question}") for q in site.test)
    return replace(site, passages=passages, test=test)
