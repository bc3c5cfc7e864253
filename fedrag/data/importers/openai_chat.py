"""Import fine-tuning files in OpenAI's chat format: JSON lines with `messages`.

The assistant's last message is the answer; the user's last message before it holds the question. A pattern finds
passages in the system's messages and in that user message, or they come from a file of their own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedrag.data.importers.draft import (
    DEFAULT_FRACTIONS,
    Imported,
    SiteDraft,
    build_sites,
    clean,
    holding,
    told_answers,
    unique_slugs,
)
from fedrag.data.importers.table import look_up
from fedrag.data.importers.text_file import read_rows
from fedrag.data.splitting import Fractions
from fedrag.errors import ConfigError, DataError
from fedrag.types import Passage

# Labels in English, German, Vietnamese and Chinese; the Chinese colon is another character.
_CONTEXTS = "context(?: information)?|passages?|documents?|sources?|kontext|ngữ cảnh|đoạn văn|上下文|段落|背景|资料"
_QUESTIONS = "question|query|frage|câu hỏi|问题|提问"
_ANSWERS = "answer|antwort|trả lời|答案|回答"
_COLON = r"\s*[:\uff1a]"
_QUESTION = rf"^[ \t]*(?:{_QUESTIONS}){_COLON}\s*(?P<question>.+?)"
_LABEL = rf"^[ \t]*(?:{_CONTEXTS}|{_QUESTIONS}|{_ANSWERS}){_COLON}"

PATTERNS: dict[str, str] = {
    # A passage is "Context: ..." up to the next label; the question is after "Question:", or all the rest.
    "context-block": (
        rf"(?ims)^[ \t]*(?:{_CONTEXTS}){_COLON}\s*(?P<passage>.+?)\s*(?={_LABEL}|\Z)"
        rf"|{_QUESTION}\s*(?={_LABEL}|\Z)"
    ),
    # A passage is <context>...</context> or similar; the question is in <question>, or all the rest.
    "xml": (
        r"(?is)<(?P<tag>passage|document|context|doc|source)\b[^>]*>\s*(?P<passage>.*?)\s*</(?P=tag)>"
        r"|<question>\s*(?P<question>.*?)\s*</question>"
    ),
    # A passage is "[1] ..." or "1. ..." up to the next number, empty line or label; the question as above.
    "numbered": (
        r"(?ims)^[ \t]*(?:\[\d+\]|\(\d+\)|\d+[.)])[ \t]*(?P<passage>.+?)\s*"
        rf"(?=^[ \t]*(?:\[\d+\]|\(\d+\)|\d+[.)])|\n[ \t]*\n|{_LABEL}|\Z)"
        rf"|{_QUESTION}\s*(?={_LABEL}|\Z)"
    ),
    # The context between two rules of hyphens, as in the standard prompt of LlamaIndex, and then the query.
    "llama-index": (
        r"(?is)^[^\n]*context[^\n]*:?[ \t]*\n-{5,}[ \t]*\n(?P<passage>.+?)\n-{5,}[ \t]*(?:\n|\Z)"
        r"|(?:^|\n)[ \t]*query[ \t]*:\s*(?P<question>.+?)\s*(?=\n[ \t]*answer[ \t]*:|\Z)"
    ),
}
"""How passages and questions stand in messages, by name."""

_EMPTY_LABEL = re.compile(rf"(?im){_LABEL}[ \t]*$")


@dataclass(frozen=True, slots=True)
class ChatLayout:
    """Where a conversation holds what.

    Attributes:
        pattern: Finds the passages: a key of PATTERNS, or a regular expression with the group `passage`. It may have a
            group `question`; what it does not match of the user's message is the question otherwise.
        site: Key that names the site, for example `metadata.tenant`; None: one site, named after the file.
        from_tool: Whether what a tool returned is a passage.
    """

    pattern: str | None = None
    site: str | None = None
    from_tool: bool = False


@dataclass(frozen=True, slots=True)
class _Conversation:
    """The site, the question, the answer and the passages of one conversation."""

    site: str
    question: str
    answer: str
    passages: list[str]
    fault: str = ""
    """Why it is left out."""


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
    answer word for word, since the others may be distractors.

    Args:
        path: The JSON lines.
        layout: Where a conversation holds what.
        corpus: Passages that every site gets.
        fractions: Shares of the splits.
        seed: Seed of the splits.
        encoding: Name of the file's encoding; see `read_text`.

    Raises:
        ConfigError: The pattern is not valid, or there is neither a pattern nor a corpus.
        DataError: A line is not a conversation, or no conversation holds a passage.
    """
    if layout.pattern is None and not corpus and not layout.from_tool:
        raise ConfigError(
            "passages are needed: give a pattern that finds them (--passage-pattern), a file of them (--passages), or "
            "say that a tool returned them (--passage-from tool)"
        )
    pattern = None if layout.pattern is None else _compile(layout.pattern)
    notes: list[str] = []
    rows = read_rows(path, encoding, notes.append)
    conversations = [_read_conversation(row, place, pattern, layout, path.stem) for place, row in rows]
    skipped: Counter[str] = Counter()
    slugs = unique_slugs(conversation.site for conversation in conversations)
    drafts = {name: SiteDraft(slugs[name], corpus) for name in slugs}
    for conversation in conversations:
        if conversation.fault:
            skipped[conversation.fault] += 1
        elif conversation.question and told_answers([conversation.answer]):
            _add(drafts[conversation.site], conversation)
        else:
            skipped["conversations without question or answer"] += 1
    if not corpus and not any(conversation.passages for conversation in conversations):
        raise DataError(f"{path}: no passage was found in any conversation")
    return build_sites(drafts.values(), skipped, path, fractions, seed, notes)


def _add(draft: SiteDraft, conversation: _Conversation) -> None:
    texts = {draft.add_passage(text): text for text in conversation.passages}
    draft.add_question(conversation.question, [conversation.answer], holding(texts, [conversation.answer]))


def _read_conversation(
    row: Mapping[str, Any], place: str, pattern: re.Pattern[str] | None, layout: ChatLayout, name: str
) -> _Conversation:
    messages = _read_messages(row, place)
    roles = [message.role for message in messages]
    last_answer = max((i for i, role in enumerate(roles) if role == "assistant"), default=0)
    asked = max((i for i in range(last_answer) if roles[i] == "user"), default=None)
    question = messages[asked].text if asked is not None else ""
    before = messages[:last_answer]
    passages: list[str] = []
    if pattern is not None:
        instructions = [message.text for message in before if message.role in ("system", "developer")]
        passages = [text for message in (*instructions, question) for text in _found(pattern, "passage", message)]
        question = _question(pattern, question)
    if layout.from_tool:
        told = messages[(asked or 0) : last_answer]
        passages += [clean(message.text) for message in told if message.role in ("tool", "function") if message.text]
    answer = messages[last_answer] if roles and roles[last_answer] == "assistant" else _Message("assistant", "")
    fault = "" if answer.trains else "conversations whose last answer has the weight 0"
    site = _site_of(row, place, layout.site) if layout.site else name
    return _Conversation(site, question.strip(), answer.text.strip(), passages, fault)


def _question(pattern: re.Pattern[str], message: str) -> str:
    """Return the question that the pattern finds, or else the message without what the pattern matches."""
    found = _found(pattern, "question", message)
    if found:
        return found[-1]
    left = _EMPTY_LABEL.sub("", pattern.sub("", message))
    return "\n".join(line.strip() for line in left.splitlines() if line.strip())


def _found(pattern: re.Pattern[str], group: str, message: str) -> list[str]:
    """Return all matches of a group in a message."""
    if group not in pattern.groupindex:
        return []
    texts = [clean(match.group(group) or "") for match in pattern.finditer(message)]
    return [text for text in texts if text]


@dataclass(frozen=True, slots=True)
class _Message:
    """A message; `trains` says whether a model may learn from it."""

    role: str
    text: str
    trains: bool = True


def _read_messages(row: Mapping[str, Any], place: str) -> list[_Message]:
    """Return every message."""
    messages = row.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise DataError(f'{place}: "messages" must be a list of objects with "role" and "content"')
    return [
        _Message(str(message.get("role")), _content(message.get("content"), place), message.get("weight") != 0)
        for message in messages
    ]


def _content(content: Any, place: str) -> str:
    """Return the text of a message; it may come in parts, or be null in a call of a tool."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "\n".join(part for part in parts if isinstance(part, str))
    if content is not None and not isinstance(content, str):
        raise DataError(f'{place}: "content" of a message must be a string or a list of parts')
    return content or ""


def _site_of(row: Mapping[str, Any], place: str, key: str) -> str:
    try:
        return " ".join(look_up(row, key)) or "site"
    except KeyError:
        raise DataError(f'{place}: no key "{key}" that names the site') from None


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(PATTERNS.get(pattern, pattern))
    except re.error as error:
        raise ConfigError(f"passage pattern {pattern!r}: not a regular expression: {error}") from None
    if "passage" not in compiled.groupindex:
        known = ", ".join(PATTERNS)
        raise ConfigError(f"passage pattern {pattern!r}: neither {known} nor with a group (?P<passage>...)")
    return compiled
