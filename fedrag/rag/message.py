"""The user's message of a prompt as one text, for libraries that fill templates, and back again."""

from __future__ import annotations

from collections.abc import Sequence

from fedrag.rag.wording import Wording


def message_text(wording: Wording, question: str, passages: Sequence[str]) -> str:
    r"""Return the message that asks a question on passages.

    >>> from fedrag.config.rag_settings import RagConfig
    >>> from fedrag.rag.wording import wording_of
    >>> message_text(wording_of(RagConfig()), "Who?", ["one", "two"])
    'Passage: one\n\nPassage: two\n\nQuestion: Who?'
    """
    opening, joint, closing = around_passages(wording)
    context = f"{opening}{joint.join(passages)}{closing}" if passages else ""
    asked = wording.gap + question
    parts = (asked, wording.between, context) if wording.question_first else (context, wording.between, asked)
    before, after = around_message(wording)
    return f"{before}{''.join(parts)}{after}"


def parse_message(wording: Wording, message: str) -> tuple[str, list[str]] | None:
    """Return question and passages of a message, or None where it has another form.

    Where passages are joined by empty lines alone, each paragraph counts as a passage.
    """
    before, after = around_message(wording)
    if not message.startswith(before) or not message.rstrip(" ").endswith(after.rstrip(" ")):
        return None
    opening, joint, closing = around_passages(wording)
    inner = message[len(before) :].rstrip(" ")
    inner = inner[: len(inner) - len(after.rstrip(" "))]
    if wording.question_first:
        asked, found, context = inner.partition(wording.between + opening)
        context = opening + context
    else:
        context, found, asked = inner.rpartition(wording.between + wording.gap)
        asked = wording.gap + asked
    is_whole = context.startswith(opening) and context.endswith(closing) and asked.startswith(wording.gap)
    if (not found and wording.between) or not (is_whole or not context):
        return None
    texts = context[len(opening) : len(context) - len(closing)].split(joint) if context else []
    return asked[len(wording.gap) :], texts


def around_passages(wording: Wording) -> tuple[str, str, str]:
    """Return what stands before the first passage, between two, and after the last."""
    first, further = wording.openings
    return first, wording.closing + further, wording.closing


def around_message(wording: Wording) -> tuple[str, str]:
    """Return the words of the scenario with which a message begins and ends."""
    return (wording.before, wording.after) if wording.in_message else ("", "")
