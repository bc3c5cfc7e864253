"""Prompts: instruction, passages, question, and the answer that follows.

Each part is tokenised on its own and the ids are concatenated, so that no token spans prompt and answer, and prompts
with the same passages share a prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedrag.config.scenario import RagConfig
from fedrag.rag.chat_frame import frame_of
from fedrag.rag.wording import wording_of
from fedrag.types import Example


class PromptBuilder:
    """Turns questions and passages into token ids for one generator.

    Uses the tokenizer's chat template if it has one. Otherwise the instruction comes first and `Answer:` last.

    Args:
        tokenizer: A transformers tokenizer.
        config: Instruction, labels and length limits.
        seq2seq: Whether the prompt goes to an encoder, with its closing special tokens.

    Raises:
        ModelError: The chat template does not show instruction, passages and question before the answer's place.

    Attributes:
        question_mark: The first tokens of a prompt's question, after instruction and passages.
        end_id: The token that ends an answer.
    """

    def __init__(self, tokenizer: Any, config: RagConfig, *, seq2seq: bool) -> None:
        self._tokenizer = tokenizer
        self._config = config
        self._seq2seq = seq2seq
        self._wording = wording_of(config)
        frame = frame_of(tokenizer, config)
        self._chat = frame.is_chat
        opening, closing = self._special_ids()
        self._head = ([] if self._chat else opening) + self._ids(frame.head, special=True)
        self._tail = self._ids(frame.tail, special=True) + (closing if seq2seq else [])
        self.question_mark = self._ids(self._wording.question_label)
        self.end_id: int = tokenizer.eos_token_id

    def example(self, question: str, passages: Sequence[str], answer: Sequence[int] = ()) -> Example:
        """Return a prompt of at most `prompt_tokens`, and the answer that follows it.

        In a prompt that is too long the longest passages are shortened, but never the question.
        """
        words = self._wording
        asked = [*self.question_mark, *self._ids(words.after(words.question_label, question))]
        label = words.passage_label
        texts = [self._ids(f"{label}{words.after(label, text)}\n\n") for text in passages]
        room = self._config.prompt_tokens - len(self._head) - len(asked) - len(self._tail)
        limit = _common_limit([len(text) for text in texts], room)
        prompt, ends = list(self._head), [len(self._head)]
        for text in texts:
            prompt += text[:limit]
            ends.append(len(prompt))
        prefix_ends = sorted(set(ends[1:] or ends))  # a set: a passage may have no room
        # An encoder reads a prompt as a whole: no part of it can be remembered.
        return Example([*prompt, *asked, *self._tail], list(answer), () if self._seq2seq else tuple(prefix_ends))

    def answer(self, text: str, *, end: bool) -> list[int]:
        """Return an answer's token ids, at most `answer_tokens`, with or without the end token."""
        ids = self._ids(text.strip() if self._chat else f" {text.strip()}")[: self._config.answer_tokens]
        return [*ids, self.end_id] if end else ids

    def text(self, ids: Sequence[int]) -> str:
        """Return a generated answer as text, up to the end token."""
        kept = list(ids)
        if self.end_id in kept:
            kept = kept[: kept.index(self.end_id)]
        return str(self._tokenizer.decode(kept, skip_special_tokens=True)).strip()

    def _ids(self, text: str, *, special: bool = False) -> list[int]:
        """Tokenise a text; only the template's own text may contain special tokens.

        A passage that contains the text of an end token must not end the message.
        """
        found = self._tokenizer(text, add_special_tokens=False, split_special_tokens=not special, verbose=False)
        return list(found["input_ids"])

    def _special_ids(self) -> tuple[list[int], list[int]]:
        """Return the special tokens that the tokenizer puts before and after a text."""
        plain, full = self._ids("a"), list(self._tokenizer("a")["input_ids"])
        start = next(i for i in range(len(full)) if full[i : i + len(plain)] == plain)
        return full[:start], full[start + len(plain) :]


def _common_limit(lengths: Sequence[int], room: int) -> int:
    """Return the largest limit such that all texts, cut to it, fit into the room.

    >>> _common_limit([10, 100, 100], 150)
    70
    """
    limit = max(lengths, default=0)
    remaining, left = max(room, 0), len(lengths)
    for length in sorted(lengths):
        if length * left > remaining:
            return remaining // left
        remaining -= length
        left -= 1
    return limit
