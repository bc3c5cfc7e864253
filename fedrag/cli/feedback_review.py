"""`fedrag feedback review`: one piece of feedback after another in the terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.text import Text

from fedrag.cli.tables import LOG_WIDTH, print_lines
from fedrag.errors import DataError

if TYPE_CHECKING:
    from fedrag.data.feedback_row import Feedback
    from fedrag.data.feedback_store import FeedbackStore
    from fedrag.types import Passage

EXCERPT_LINES = 3
CHOICES = "a accept · e edit the answer · p pick the right passages · d drop · s skip · q quit: "
PICK = "Right passages (numbers as above, an id, words to search for, - for none, Enter to leave them): "
EDIT = "Right answer (Enter to leave it): "


def review_all(store: FeedbackStore, rows: Sequence[Feedback], passages: Mapping[str, Passage]) -> None:
    """Show one row after another and write down what the reviewer decides, until the last or q.

    Args:
        store: Where decisions go, each at once.
        rows: What to review.
        passages: The site's passages by id.
    """
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # gives input() the arrow keys
    for number, row in enumerate(rows, start=1):
        print_lines(["", f"{number} of {len(rows)}"])
        try:
            if not _review(store, row, passages):
                return
        except DataError as error:  # another reviewer, or an export, was faster
            print_lines([f"{error}."])


def _review(store: FeedbackStore, row: Feedback, passages: Mapping[str, Passage]) -> bool:
    """Review one row; return whether to go on."""
    from fedrag.data.feedback_review import accept

    _show(row, passages)
    while True:
        choice = _ask(CHOICES)
        if choice is None or choice == "q":
            return False
        if choice == "s":
            return True
        if choice == "d":
            store.review(row.id, "dropped")
            return True
        if choice == "a":
            try:
                accept(store, row)
            except DataError as error:
                print_lines([f"{error}."])
                continue
            return True
        if choice == "e" and (answer := _ask(EDIT)):
            row = store.review(row.id, "edited", correction=answer)
            _show(row, passages)
        elif choice == "p" and (picked := _pick(row, passages)) is not None:
            row = store.review(row.id, "edited", right_ids=picked)
            _show(row, passages)


def _ask(prompt: str) -> str | None:
    """Return what is typed; None at the end of the input."""
    try:
        return input(prompt).strip()
    except EOFError:
        typer.echo()
        return None


def _pick(row: Feedback, passages: Mapping[str, Passage]) -> list[str] | None:
    """Return the ids of the picked passages; None where they stay as they are."""
    from fedrag.data.feedback_review import find_passages, passages_beside

    numbered = [beside.passage for beside in passages_beside(row, passages)]
    while typed := _ask(PICK):
        if typed == "-":
            return []
        parts = typed.replace(",", " ").split()
        if all(part.isdecimal() and 1 <= int(part) <= len(numbered) for part in parts):
            return [numbered[int(part) - 1].id for part in parts]
        if typed in passages:
            return [typed]
        found = [passage for passage in find_passages(passages.values(), typed) if passage not in numbered]
        if not found:
            print_lines(["No other passage holds any of these words."])
        for passage in found:
            numbered.append(passage)
            _show_passage(len(numbered), passage, "", parts)
    return None


def _show(row: Feedback, passages: Mapping[str, Passage]) -> None:
    from fedrag.data.feedback_review import passages_beside

    console = Console(soft_wrap=True, highlight=False)
    console.print(Text(row.question, style="bold"))
    console.print(Text(f"answered:     {row.answer or '(nothing)'}  [{row.verdict}, {row.day}]"))
    console.print(Text(f"right answer: {row.right_answer or '(none given)'}  [{row.state}]"))
    for number, beside in enumerate(passages_beside(row, passages), start=1):
        marks = {"right": beside.is_right, "wrong": beside.is_wrong, "holds the answer": beside.holds_answer}
        told = ", ".join(mark for mark, is_so in marks.items() if is_so)
        _show_passage(number, beside.passage, told, [row.right_answer] if row.right_answer else [])


def _show_passage(number: int, passage: Passage, told: str, marked: Sequence[str]) -> None:
    from fedrag.reporting.excerpts import excerpt

    console = Console(soft_wrap=True, highlight=False)
    room = EXCERPT_LINES * (console.width if console.is_terminal else LOG_WIDTH)
    part = excerpt(" ".join(passage.text.split()), marked, room)
    head = " · ".join(filter(None, (passage.title or passage.id, passage.source, told)))
    console.print(
        Text.assemble((f"{number:>3}  {head}\n", "cyan"), "     ", part.before, (part.match, "bold"), part.after)
    )
