"""`fedrag ask`: answers of the untouched and of a run's models, side by side."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedrag.cli.tables import LOG_WIDTH, print_lines, show
from fedrag.text import plural

if TYPE_CHECKING:
    from fedrag.evaluation.answerer import Found, RagAnswer
    from fedrag.evaluation.ask import Asked, BeforeAndAfter

EXCERPT_LINES = 4
PROMPT = "Question: "
_FIGURES = {
    "dense": "similarity to the question",
    "bm25": "BM25, of the words that are in the question too",
    "hybrid": "the sum of the reciprocal ranks by similarity and by BM25",
}

Question = Annotated[
    str | None, typer.Argument(help="The question; without one, fedrag reads questions until an empty line.")
]
Passages = Annotated[
    int | None,
    typer.Option("--passages", min=1, help="Passages to find; by default, as many as the run gives the generator."),
]
JsonLines = Annotated[bool, typer.Option("--json", help="Print a line of JSON per question, and nothing else.")]


def ask_command(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", show_default=False)],
    data: Annotated[Path, typer.Option("--data", metavar="SITE", help="Site whose passages to search.")],
    question: Question = None,
    passages: Passages = None,
    as_json: JsonLines = False,
) -> None:
    """Answer a question with the untouched and the trained models.

    Example: fedrag ask runs/tiny-1 "What does a late book cost?" --data simulations/data/tiny/north
    """
    with Console(stderr=True).status("Loading the models and indexing the passages ..."):
        from fedrag.evaluation.ask import BeforeAndAfter

        both = BeforeAndAfter.of_run(run, data, passages)
    ask_all(both, question, as_json)


def ask_all(both: BeforeAndAfter, question: str | None, as_json: bool) -> None:
    """Print both answers to one question, or to each one typed."""
    if question is None and not as_json:
        print_lines([f"Answers come from the passages of {both.site}. An empty line or Ctrl-D ends it."])
    for asked in [question] if question is not None else _typed("" if as_json else PROMPT):
        answered = both.ask(asked)
        if as_json:
            typer.echo(json.dumps(answered.to_json(), ensure_ascii=False))
        else:
            _show(answered)


def _typed(prompt: str) -> Iterator[str]:
    """Yield the typed lines, up to an empty one or the end of the input."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # gives input() the arrow keys
    while True:
        try:
            line = input(prompt)
        except (EOFError, KeyboardInterrupt) as end:
            if prompt:
                typer.echo()  # the next output starts on a new line
            if isinstance(end, KeyboardInterrupt):
                raise
            return
        if not line.strip():
            return
        yield line


def _show(asked: Asked) -> None:
    """Print both answers in two columns, passages by rank."""
    console = Console()
    width = console.width if console.is_terminal else LOG_WIDTH
    print_lines(["", f"{asked.site}: {asked.question}", *_what_is_known(asked)])
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), width=width, caption=_legend(asked))
    for heading in ("Untouched", f"Trained: {' and '.join(asked.components)}"):
        table.add_column(heading, ratio=1, overflow="fold")
    table.add_row(_answer(asked.untouched), _answer(asked.trained), end_section=True)
    room = EXCERPT_LINES * (width // 2 - 3)
    for before, after in zip(asked.untouched.found, asked.trained.found, strict=True):
        table.add_row(_passage(before, asked, asked.untouched, room), _passage(after, asked, asked.trained, room))
    show(table)


def _what_is_known(asked: Asked) -> list[str]:
    """Return what a reader must know: right answers, an untouched component, what the generator does not read."""
    from fedrag.types import COMPONENTS

    lines = []
    if asked.right_answers:
        files = " and ".join(f"{split}.jsonl" for split in asked.splits)
        lines.append(f"Right answers ({files}): {'; '.join(asked.right_answers)}")
    if len(asked.components) == 1:
        [other] = [component for component in COMPONENTS if component not in asked.components]
        lines.append(f"{asked.run} trained the {asked.components[0]} alone; the {other} is untouched on both sides.")
    if unread := max(asked.untouched.unread_tokens, asked.trained.unread_tokens):
        lines.append(f"The question is too long for the prompt: its last {plural(unread, 'token')} were not read.")
    if not any(found.is_given for found in asked.trained.found):
        lines.append(f"{asked.run} gives the generator no passages: it answers from memory.")
    return lines


def _legend(asked: Asked) -> str | None:
    if not asked.trained.found:
        return None
    labelled = any(found.is_labelled for side in (asked.untouched, asked.trained) for found in side.found)
    right = "; right: holds the answer, as the site's files say" if labelled else ""
    return f"Figures: {_FIGURES[asked.search]}. *: given to the generator{right}."


def _answer(side: RagAnswer) -> Text:
    return Text(side.answer or "(no answer)", style="bold")


def _passage(found: Found, asked: Asked, side: RagAnswer, room: int) -> Text:
    from fedrag.reporting.excerpts import excerpt

    mark = "*" if found.is_given else " "
    right = " (right)" if found.is_labelled else ""
    digits = 4 if asked.search == "hybrid" else 3  # reciprocal ranks lie close together
    head = f"{mark} {found.score:.{digits}f}  {found.passage.title or found.passage.id}{right}\n"
    answers = [answer for answer in (*asked.right_answers, side.answer) if answer]
    part = excerpt(" ".join(found.passage.text.split()), answers, room)
    source = f"{found.passage.source}\n" if found.passage.source else ""
    return Text.assemble((head, "cyan"), (source, "dim"), part.before, (part.match, "bold"), part.after, "\n")
