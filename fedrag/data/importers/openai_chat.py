"""Import fine-tuning files in OpenAI's chat format: JSON lines with `messages`.

The assistant's last message with a weight is the answer; the user's last message before it holds the question. A
pattern finds passages in the system's messages and in that user message; or a tool returned them; or they come from a
file of their own.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedrag.data.importers.chat_patterns import compile_pattern, find_all, find_question
from fedrag.data.importers.draft import (
    DEFAULT_FRACTIONS,
    Imported,
    SiteDraft,
    build_sites,
    holding,
    told_answers,
    unique_slugs,
)
from fedrag.data.importers.fields import site_of
from fedrag.data.importers.text_file import read_rows
from fedrag.data.splitting import Fractions
from fedrag.errors import ConfigError, DataError
from fedrag.types import Passage

_TEXT_KEYS = ("text", "content", "page_content", "passage")
"""Keys under which tools return the text of a passage."""


@dataclass(frozen=True, slots=True)
class ChatLayout:
    """Where a conversation holds what.

    Attributes:
        pattern: Finds the passages: a key of PATTERNS, or a regular expression with the group `passage`. It may have a
            group `question`; what it does not match of the user's message is the question otherwise.
        site: Key that names the site, for example `metadata.tenant`; None: one site, named after the file.
        from_tool: Whether what tools return between question and answer are passages; where the pattern finds some in
            such a message, those.
    """

    pattern: str | None = None
    site: str | None = None
    from_tool: bool = False


@dataclass(frozen=True, slots=True)
class _Message:
    role: str
    text: str
    is_unweighted: bool
    """Whether the assistant is not to learn it: OpenAI's `"weight": 0`."""


@dataclass(frozen=True, slots=True)
class _Conversation:
    """The site, the question, the answer and the passages of one conversation."""

    site: str
    question: str
    answer: str
    passages: list[str]
    unweighted: int
    """Answers that are not to be learnt."""
    has_tool: bool


def import_openai_chat(
    path: Path,
    layout: ChatLayout,
    corpus: Sequence[Passage] = (),
    fractions: Fractions = DEFAULT_FRACTIONS,
    seed: int = 0,
    encoding: str | None = None,
) -> Imported:
    """Read a fine-tuning file into sites. Conversations without a question or an answer are left out and counted.

    A question with one passage is labelled with it. A question with several is labelled with those that hold the
    answer as whole words, since the others may be distractors.

    Args:
        path: The JSON lines.
        layout: Where a conversation holds what.
        corpus: Passages that every site gets.
        fractions: Shares of the splits.
        seed: Seed of the splits.
        encoding: Encoding of the file; None: what its byte order mark says, else UTF-8.

    Raises:
        ConfigError: The pattern is not valid, or nothing says where passages are.
        DataError: A line is not a conversation, or no conversation holds a passage.
    """
    if layout.pattern is None and not corpus and not layout.from_tool:
        raise ConfigError(
            "passages are needed: give a pattern that finds them (--passage-pattern), --passage-from tool where a tool "
            "returned them, or a file of them (--passages)"
        )
    pattern = None if layout.pattern is None else compile_pattern(layout.pattern)
    notes: list[str] = []
    conversations = [
        _read_conversation(row, place, pattern, layout, path.stem)
        for place, row in read_rows(path, encoding, notes.append)
    ]
    skipped: Counter[str] = Counter()
    slugs = unique_slugs(conversation.site for conversation in conversations)
    drafts = {name: SiteDraft(slugs[name], corpus) for name in slugs}
    for conversation in conversations:
        skipped["answers of weight 0"] += conversation.unweighted
        if reason := _reason_to_skip(conversation):
            skipped[reason] += 1
        elif conversation.question and conversation.answer:
            _add(drafts[conversation.site], conversation)
    if not corpus and conversations and not any(conversation.passages for conversation in conversations):
        hints = _tool_hint(conversations, layout)
        raise DataError("; ".join([f"{path}: no passage was found in any conversation", *hints]))
    notes += [f"{path}: {hint}." for hint in _tool_hint(conversations, layout)]
    bare = sum(bool(c.question and c.answer and not c.passages) for c in conversations)
    if bare and not corpus:
        notes.append(f"{path}: {bare:,} of {len(conversations):,} conversations hold no passage.")
    return build_sites(drafts.values(), skipped, path, fractions, seed, notes)


def _reason_to_skip(conversation: _Conversation) -> str:
    """Return why a conversation is left out, or ""; one whose only answers have no weight is counted by these."""
    if not conversation.question or not conversation.answer:
        return "" if conversation.question and conversation.unweighted else "conversations without question or answer"
    return "" if told_answers([conversation.answer]) else "conversations whose answer says that there is none"


def _tool_hint(conversations: Sequence[_Conversation], layout: ChatLayout) -> list[str]:
    """Say how passages from tools are imported, where there are some and they are not asked for."""
    n_tools = sum(conversation.has_tool for conversation in conversations)
    if layout.from_tool or not n_tools:
        return []
    return [f"{n_tools:,} of {len(conversations):,} hold what a tool returned; --passage-from tool makes it passages"]


def _add(draft: SiteDraft, conversation: _Conversation) -> None:
    texts = {draft.add_passage(text): text for text in conversation.passages}
    draft.add_question(conversation.question, [conversation.answer], holding(texts, [conversation.answer]))


def _read_conversation(
    row: Mapping[str, Any], place: str, pattern: re.Pattern[str] | None, layout: ChatLayout, name: str
) -> _Conversation:
    messages = _read_messages(row, place)
    answered = max((i for i, m in enumerate(messages) if m.role == "assistant" and not m.is_unweighted), default=None)
    end = len(messages) if answered is None else answered
    asked = max((i for i in range(end) if messages[i].role == "user"), default=None)
    question = "" if asked is None else messages[asked].text
    returned = [] if asked is None else [m for m in messages[asked:end] if m.role in ("tool", "function")]
    passages: list[str] = []
    if pattern is not None:
        instructions = [m.text for m in messages[:end] if m.role in ("system", "developer")]
        passages = [text for message in (*instructions, question) for text in find_all(pattern, "passage", message)]
        question = find_question(pattern, question)
    if layout.from_tool:
        passages += [text for message in returned for text in _found_or_whole(pattern, message.text)]
    return _Conversation(
        site=site_of(row, layout.site, place, name),
        question=question.strip(),
        answer="" if answered is None else messages[answered].text.strip(),
        passages=passages,
        unweighted=sum(message.is_unweighted for message in messages),
        has_tool=any(message.text.strip() for message in returned),
    )


def _found_or_whole(pattern: re.Pattern[str] | None, message: str) -> Iterator[str]:
    """Yield the passages that a pattern finds in what a tool returned, or those of a list in JSON, or all of it."""
    found = find_all(pattern, "passage", message) if pattern else []
    yield from found or _listed(message) or filter(None, [message.strip()])


def _listed(message: str) -> list[str]:
    """Return the texts of a list in JSON, or nothing if a message is none or holds anything else."""
    try:
        items = json.loads(message) if message.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        return []
    texts = []
    for item in items or []:
        text = next((item[key] for key in _TEXT_KEYS if key in item), None) if isinstance(item, dict) else item
        if not isinstance(text, str):
            return []
        texts.append(text.strip())
    return [text for text in texts if text]


def _read_messages(row: Mapping[str, Any], place: str) -> list[_Message]:
    """Return the messages; a call of a tool has no text."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise DataError(f'{place}: "messages" must be a list of objects with "role" and "content"')
    return [_Message(str(m.get("role")), _content(m.get("content"), place), _is_unweighted(m, place)) for m in messages]


def _is_unweighted(message: Mapping[str, Any], place: str) -> bool:
    weight = message.get("weight")
    if weight is None or message.get("role") != "assistant":
        return False
    try:
        return float(weight) == 0
    except (TypeError, ValueError):
        raise DataError(f'{place}: "weight" of a message must be 0 or 1') from None


def _content(content: Any, place: str) -> str:
    """Return the text of a message; it may come in parts, or be null in a call of a tool."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "\n".join(part for part in parts if isinstance(part, str))
    if content is not None and not isinstance(content, str):
        raise DataError(f'{place}: "content" of a message must be a string or a list of parts')
    return content or ""
