"""The frame of a prompt: what a model's chat template, or plain text, puts before the passages and after the question.

A template is rendered once, with a mark in the place of passages and question. Templates differ in what they make of
that: some refuse a system message or leave it out, some expect a list of parts, some change what they are given. So
several ways are tried, and each result is looked at: the instruction, the mark and the answer's place must follow one
another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fedrag.config.rag_settings import RagConfig
from fedrag.errors import ModelError
from fedrag.rag.wording import wording_of

# Digits have no case, need no escape and look like nothing that a template searches for.
_INSTRUCTION_MARK, _USER_MARK, _ANSWER_MARK = "9071350264", "4620531709", "7206914385"

# The switches that templates know. Those that a template does not know change nothing.
_WITHOUT_THINKING = {"enable_thinking": False, "thinking": False, "reasoning": False, "thinking_budget": 0}
_OPEN_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>\s*\Z|\[(THINK)\]\s*\Z")

_DATE_LETTERS = "aAbBdHIjmMpSUwWxXyY"  # of strftime, as far as they mean the same on every machine

_Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around passages and question.

    Attributes:
        head: The text with the instruction, before all else.
        tail: The text up to the answer's place, after all else.
        is_chat: Whether a chat template wrote it.
        own: The scenario's own words before and after passages and question.
    """

    head: str
    tail: str
    is_chat: bool
    own: tuple[str, str] = ("", "")


def frame_of(tokenizer: Any, config: RagConfig) -> Frame:
    """Return the frame of the prompts of a model: that of its chat template if it has one.

    Texts stand in it as they are, whatever the template would change in them.

    Raises:
        ModelError: The template cannot be rendered, or leaves out or misplaces what it is given.
    """
    wording = wording_of(config)
    if not getattr(tokenizer, "chat_template", None):
        first_line = f"{wording.instruction}\n\n" if wording.instruction or not wording.in_message else ""
        after = wording.after.rstrip(" ")  # an answer begins with a space
        if wording.in_message:
            return Frame(first_line, "", is_chat=False, own=(wording.before, after))
        return Frame(first_line, after, is_chat=False)
    template = _Template(tokenizer, config.date)
    faults: list[str] = []
    own = (wording.before, wording.after) if wording.in_message else ("", "")
    message = _USER_MARK.join(own)
    has_system = bool(wording.instruction) or not wording.in_message
    mark = _INSTRUCTION_MARK if has_system else ""
    ways = (_ways_to_say(instruction, message, has_system=has_system) for instruction in (mark, wording.instruction))
    for marked, real in zip(*ways, strict=True):
        try:
            head, tail = _around_mark(template.render(marked, prompts=True), mark)
            said = _own_words(head, tail, own)
        except _Misplaced as error:
            faults.append(str(error))
            continue
        head = head.replace(mark, wording.instruction) if mark else head
        with suppress(_Misplaced):  # a template may look for a word of the instruction, such as a switch
            with_words = _around_mark(template.render(real, prompts=True), wording.instruction)
            said, (head, tail) = _own_words(*with_words, own), with_words
        before, after = said
        place = _answer_place(template, real, tail).removeprefix(after)
        return Frame(head.removesuffix(before), place, is_chat=True, own=said)
    raise ModelError(
        f"its chat template cannot show a prompt: {faults[0]}; "
        "give the model a template that writes messages as they are, or remove it"
    )


class _Misplaced(Exception):
    """A rendered prompt lacks a part, or the parts are in another order; the text says which."""


class _Template:
    """A tokenizer's chat template, without thinking and with the date of the run.

    Args:
        tokenizer: The tokenizer.
        date: The date, as 2026-01-31; empty: today.
    """

    def __init__(self, tokenizer: Any, date: str) -> None:
        self._tokenizer = tokenizer
        self._text: str | None = None
        text = tokenizer.chat_template
        if isinstance(text, str) and "strftime_now" in text:
            self._text = dated(text, datetime.fromisoformat(date) if date else datetime.now(UTC))

    def render(self, messages: Sequence[_Message], *, prompts: bool) -> str:
        """Render messages, with what prompts the model to answer or without."""
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages),
                    chat_template=self._text,
                    tokenize=False,
                    add_generation_prompt=prompts,
                    **_WITHOUT_THINKING,
                )
            )
        except Exception as error:  # templates refuse what they do not know with errors of their own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise _Misplaced(f"it fails ({reason})") from None


def dated(template: str, day: datetime) -> str:
    """Return a chat template that shows a given day, whatever the day on which it is rendered.

    The function of the clock that a template may call becomes a macro of its own.
    """
    directives = (f"%{flag}{letter}" for letter in _DATE_LETTERS for flag in ("", "-"))
    replaced = "".join(f"|replace({code!r}, {day.strftime(code)!r})" for code in directives)
    return f"{{%- macro strftime_now(format) -%}}{{{{ format{replaced} }}}}{{%- endmacro %}}\n{template}"


def _ways_to_say(instruction: str, message: str, *, has_system: bool) -> Iterator[list[_Message]]:
    """Yield the ways to give a template the instruction and the user's message, the most usual first.

    Where a scenario has a prompt of its own and no instruction, the user's message stands alone.
    """
    joined = f"{instruction}\n\n{message}" if instruction else message
    if has_system:
        for system, user in ((str, str), (_as_parts, _as_parts), (str, _as_parts)):
            yield [_message("system", system(instruction)), _message("user", user(message))]
    yield [_message("user", joined)]
    yield [_message("user", _as_parts(joined))]


def _message(role: str, content: object) -> _Message:
    return {"role": role, "content": content}


def _as_parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _around_mark(text: str, instruction: str) -> tuple[str, str]:
    """Return what stands before and after the mark of passages and question: the scenario's own words, too."""
    head, *others = text.split(_USER_MARK)
    if not others:
        raise _Misplaced("it leaves out the user's message, or changes it")
    if len(others) > 1:
        raise _Misplaced("it writes the user's message several times")
    if instruction.strip() not in head:
        where = "after the question" if instruction.strip() in others[0] else "nowhere"
        raise _Misplaced(f"the instruction stands {where}")
    return head, others[0]


def _own_words(head: str, tail: str, own: tuple[str, str]) -> tuple[str, str]:
    """Return the scenario's own words as they stand around the mark: a template may trim the message's ends."""
    before = own[0] if head.endswith(own[0]) else own[0].lstrip()
    after = own[1] if tail.startswith(own[1]) else own[1].rstrip()
    if not head.endswith(before) or not tail.startswith(after):
        raise _Misplaced("it changes the words of rag.template")
    return before, after


def _answer_place(template: _Template, messages: Sequence[_Message], tail: str) -> str:
    """Return the text after the question up to where the model's answer stands in a whole conversation.

    What prompts a model to answer may end before that: in an open thought, before the name of a channel, or, where the
    template knows no such prompt, with the question.
    """
    content = messages[-1]["content"]
    answer = _message("assistant", _ANSWER_MARK if isinstance(content, str) else _as_parts(_ANSWER_MARK))
    try:
        whole = template.render([*messages, answer], prompts=False)
    except _Misplaced:
        whole = ""
    before = whole.partition(_USER_MARK)[2].partition(_ANSWER_MARK)[0] if _ANSWER_MARK in whole else ""
    if before.startswith(tail) and any(letter.isalnum() for letter in before[len(tail) :]):
        return before
    if thought := _OPEN_THOUGHT.search(tail):
        end = f"</{thought[1]}>" if thought[1] else f"[/{thought[2]}]"
        return f"{tail.rstrip()}\n\n{end}\n\n"
    return tail
