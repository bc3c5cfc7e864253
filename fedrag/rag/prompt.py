"""Prompts: instruction, passages, question, and the answer that follows.

Each part is tokenised on its own and the ids are concatenated, so that no token spans prompt and answer, and prompts
with the same passages share a prefix.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from fedrag.config.rag_settings import RagConfig
from fedrag.rag.budget import check_budget, share_out
from fedrag.rag.chat_frame import frame_of
from fedrag.rag.window import PassageReader, Shown
from fedrag.rag.wording import wording_of
from fedrag.types import Example


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a prompt's text; each is tokenised on its own.

    Attributes:
        text: The text, with `{passage}` or `{question}` in the place of what it is filled with.
        fill: What it is filled with, "passage" or "question"; empty: nothing. Each passage has a piece of its own.
        special: Whether its special tokens are read as such; those of a passage or a question never are.
        further: The text for each passage after the first; empty: the same.
    """

    text: str
    fill: str = ""
    special: bool = False
    further: str = ""

    def filled(self, text: str, place: int = 0) -> str:
        """Return the piece with the question or a passage in its place, the first one or a further one.

        >>> Piece("Passage: {passage}.", "passage").filled("{1}")
        'Passage: {1}.'
        """
        own = (place and self.further) or self.text
        return own.replace(f"{{{self.fill}}}", text) if self.fill else own


@dataclass(frozen=True, slots=True)
class Fitted:
    """A question and its passages as they fit into a prompt.

    Attributes:
        question: Tokens of the question that are read.
        question_tokens: Tokens that it has.
        passages: Tokens of each passage that are read.
        passage_tokens: Tokens that each has, of a very long one at least as many as a prompt holds.
    """

    question: list[int]
    question_tokens: int
    passages: list[list[int]]
    passage_tokens: list[int]

    @property
    def cuts_question(self) -> bool:
        """Whether the end of the question is not read."""
        return len(self.question) < self.question_tokens

    @property
    def cut_passages(self) -> int:
        """The number of passages of which a part is read."""
        return sum(len(read) < whole for read, whole in zip(self.passages, self.passage_tokens, strict=True))


class PromptBuilder:
    """Turns questions and passages into token ids for one generator.

    Uses the tokenizer's chat template if it has one. Otherwise the instruction comes first and `Answer:` last. A
    scenario's own template takes the place of labels and instruction; its question may come before the passages.

    Args:
        tokenizer: A transformers tokenizer.
        config: Instruction, labels and length limits.
        seq2seq: Whether the prompt goes to an encoder, with its closing special tokens.

    Raises:
        ModelError: The chat template does not show instruction, passages and question before the answer's place.
        ConfigError: `prompt_tokens` cannot hold a question and a useful piece of each passage.

    Attributes:
        question_mark: The first tokens of a prompt's question, after instruction and passages; where the question
            comes first, what stands between it and the passages.
        end_id: The token that ends an answer.
        pieces: The text of a prompt, in order.
        around: The special tokens before and after all pieces.
        room: Tokens of a prompt for its question and its passages.
    """

    def __init__(self, tokenizer: Any, config: RagConfig, *, seq2seq: bool) -> None:
        self._tokenizer = tokenizer
        self._config = config
        self._seq2seq = seq2seq
        self._wording = wording = wording_of(config)
        frame = frame_of(tokenizer, config)
        self._chat = frame.is_chat
        opening, closing = self._special_ids()
        self.around = ([] if self._chat else opening, closing if seq2seq else [])
        before, after = frame.own
        self._head = self.around[0] + self._ids(frame.head, special=True) + self._ids(before)
        self._tail = self._ids(after) + self._ids(frame.tail, special=True) + self.around[1]
        self.question_mark = self._ids(wording.between)
        self.end_id: int = tokenizer.eos_token_id
        around = len(self._head) + len(self.question_mark) + len(self._tail)
        check_budget(config.prompt_tokens, around, config.passages_per_prompt or config.passages)
        self.room = config.prompt_tokens - around
        self._first_reader, self._reader = (
            PassageReader(self._ids, opening, config.prompt_tokens, wording.closing) for opening in wording.openings
        )
        first, further = (f"{opening}{{passage}}{wording.closing}" for opening in wording.openings)
        shown = [Piece(first, "passage", further="" if further == first else further)] if config.passages else []
        asked = [Piece(f"{wording.gap}{{question}}", "question")]
        inner = (asked, shown) if wording.question_first else (shown, asked)
        self.pieces = (
            Piece(frame.head, special=True),
            *([Piece(before)] if before else []),
            *inner[0],
            Piece(wording.between),
            *inner[1],
            *([Piece(after)] if after else []),
            Piece(frame.tail, special=True),
        )

    def example(self, question: str, passages: Sequence[Shown | str], answer: Sequence[int] = ()) -> Example:
        """Return a prompt of at most `prompt_tokens`, and the answer that follows it.

        Args:
            question: The question.
            passages: The passages; of a text alone the beginning is shown where it does not fit.
            answer: Token ids.
        """
        return self.fitted_example(self.fit(question, passages), answer)

    def fitted_example(self, fitted: Fitted, answer: Sequence[int] = ()) -> Example:
        """Return the prompt of a question and its passages, and the answer that follows it."""
        asked = fitted.question
        prompt = [*self._head, *asked, *self.question_mark] if self._wording.question_first else list(self._head)
        ends = [len(prompt)]
        for passage in fitted.passages:
            prompt += passage
            ends.append(len(prompt))
        # After a question, no other prompt has the same passages in the same place.
        # A set: a passage may have no tokens.
        prefix_ends = ends[:1] if self._wording.question_first else sorted(set(ends[1:] or ends))
        prompt += self._tail if self._wording.question_first else [*self.question_mark, *asked, *self._tail]
        # An encoder reads a prompt as a whole: no part of it can be remembered.
        return Example(prompt, list(answer), () if self._seq2seq else tuple(prefix_ends))

    def fit(self, question: str, passages: Sequence[Shown | str]) -> Fitted:
        """Return what a prompt holds of a question and its passages, as `share_out` says.

        The beginning of a question is read, and of a passage the window around its part.
        """
        asked = self._ids(self._wording.gap + question)
        shown = [Shown(passage) if isinstance(passage, str) else passage for passage in passages]
        readers = [self._first_reader, *repeat(self._reader, len(shown) - 1)][: len(shown)]
        lengths = [len(reader.whole(passage)) for reader, passage in zip(readers, shown, strict=True)]
        most, limit = share_out(self.room, len(asked), lengths)
        read = [reader.within(passage, limit) for reader, passage in zip(readers, shown, strict=True)]
        return Fitted(asked[:most], len(asked), read, lengths)

    def user_text(self, question: str, passages: Sequence[Shown]) -> str:
        """Return what a prompt says between instruction and answer's place, cut as prompts are."""
        fitted = self.fit(question, passages)
        read: dict[str, list[tuple[str, list[int], int]]] = {
            "": [("", [], 0)],
            "question": [(question, fitted.question, fitted.question_tokens)],
            "passage": [
                (shown.text, ids, whole)
                for shown, ids, whole in zip(passages, fitted.passages, fitted.passage_tokens, strict=True)
            ],
        }
        return "".join(
            piece.filled(text, place) if len(ids) == whole else self._tokenizer.decode(ids)
            for piece in self.pieces
            if not piece.special
            for place, (text, ids, whole) in enumerate(read[piece.fill])
        )

    def shown_texts(self, fitted: Fitted, passages: Sequence[Shown]) -> list[str]:
        """Return of each passage the text that a prompt holds: all of it, or the window that is read."""
        return [
            passage.text if len(read) == whole else str(self._tokenizer.decode(read, skip_special_tokens=True))
            for passage, read, whole in zip(passages, fitted.passages, fitted.passage_tokens, strict=True)
        ]

    def question_tokens(self, question: str) -> int:
        """Return the number of tokens of a whole question."""
        return len(self._ids(self._wording.gap + question))

    def passage_tokens(self, text: str) -> int:
        """Return the number of tokens of a whole passage; of a very long one, at least as many as a prompt holds."""
        return len(self._reader.whole(Shown(text)))

    def answer_tokens(self, text: str) -> int:
        """Return the number of tokens of a whole answer, without the end token."""
        return len(self._answer_ids(text))

    def answer(self, text: str, *, end: bool) -> list[int]:
        """Return an answer's token ids, at most `answer_tokens`, with or without the end token.

        A longer answer is cut, and does not end there.
        """
        ids = self._answer_ids(text)
        most = self._config.answer_tokens
        return [*ids, self.end_id] if end and len(ids) <= most else ids[:most]

    def is_whole(self, ids: Sequence[int], end_ids: Collection[int]) -> bool:
        """Return whether a generated answer ended of its own accord, at an end token or where `text` ends it.

        Args:
            ids: Its tokens, with one more than an answer may have.
            end_ids: The tokens that end an answer.
        """
        if not set(end_ids).isdisjoint(ids):
            return True
        return not self._chat and "\n" in str(self._tokenizer.decode(ids, skip_special_tokens=True)).lstrip()

    def text(self, ids: Sequence[int]) -> str:
        """Return a generated answer as text, up to the end token.

        A model without a chat template goes on with another passage or question: its answer ends at a new line.
        """
        kept = list(ids)
        if self.end_id in kept:
            kept = kept[: kept.index(self.end_id)]
        text = str(self._tokenizer.decode(kept, skip_special_tokens=True)).strip()
        return text if self._chat else text.partition("\n")[0].rstrip()

    def _answer_ids(self, text: str) -> list[int]:
        if self._chat:
            return self._ids(text.strip())
        line = " ".join(text.splitlines())  # a generated answer ends at the end of its line
        return self._ids(f" {line.strip()}")

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
