"""Cuts long passages into chunks that fit the retriever.

A passage ranks by its best chunk. Chunks carry the id of their passage, so hits and figures are about passages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedrag.errors import ConfigError, ModelError
from fedrag.types import Passage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
"""A token's first character and the one after its last."""


_PASSAGES_AT_A_TIME = 1_000
"""Passages whose tokens' positions are in memory together: a position takes more than the text it stands for."""


@dataclass(frozen=True, slots=True)
class Part:
    """Where the text of a chunk stands in a passage: `full_text[:head] + full_text[start:end]`."""

    head: int
    start: int
    end: int

    def of(self, full_text: str) -> str:
        """Return the part of a passage's full text."""
        return full_text[: self.head] + full_text[self.start : self.end]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a passage that fits the retriever's input."""

    passage_id: str
    text: str
    part: Part = field(default=Part(0, 0, 0), compare=False)


def chunk_passages(
    passages: Sequence[Passage], tokenizer: PreTrainedTokenizerBase, size: int, overlap: int
) -> list[Chunk]:
    """Cut passages into chunks, in order; see `iterate_chunks`."""
    return list(iterate_chunks(passages, tokenizer, size, overlap))


def iterate_chunks(
    passages: Sequence[Passage], tokenizer: PreTrainedTokenizerBase, size: int, overlap: int
) -> Iterator[Chunk]:
    """Cut passages into chunks, in order, some passages at a time.

    Every chunk of a titled passage starts with the title, unless the title takes more than half of a chunk.

    Args:
        passages: What to cut.
        tokenizer: The retriever's own, a fast one.
        size: Most tokens in a chunk, not counting special tokens.
        overlap: Tokens that neighbouring chunks share.

    Raises:
        ModelError: The tokenizer cannot tell the positions of its tokens in the text.
        ConfigError: The overlap is not smaller than the chunks.
    """
    if not tokenizer.is_fast:
        raise ModelError(f"{tokenizer.name_or_path}: a fast tokenizer is needed to cut passages into chunks")
    for first in range(0, len(passages), _PASSAGES_AT_A_TIME):
        block = passages[first : first + _PASSAGES_AT_A_TIME]
        texts = [passage.full_text for passage in block]
        encoded = tokenizer(
            texts,
            add_special_tokens=False,
            truncation=False,
            padding=False,
            return_offsets_mapping=True,
            verbose=False,  # no warning that the text is longer than the model's input
        )
        for passage, text, offsets in zip(block, texts, encoded["offset_mapping"], strict=True):
            for part in _parts(passage, text, offsets, size, overlap):
                yield Chunk(passage.id, part.of(text), part)


def chunk_spans(text: str, offsets: Sequence[Span], size: int, overlap: int) -> list[Span]:
    """Cut a text into chunks of at most `size` tokens; every token is in at least one of them.

    Chunks begin and end between words where possible: the halves of a word may have more tokens than the word.

    >>> chunk_spans("a b c d e", [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)], size=3, overlap=1)
    [(0, 5), (4, 9)]

    Returns:
        Each chunk's first character and the one after its last.

    Raises:
        ConfigError: The overlap is not smaller than the chunks.
    """
    if not 0 <= overlap < size:
        raise ConfigError(f"chunks of {size} tokens cannot share {overlap}: the overlap must be smaller")
    if len(offsets) <= size:
        return [(0, len(text))]
    starts_word = [_starts_word(text, begin) for begin, _ in offsets]
    chunks: list[Span] = []
    start = 0
    while start + size < len(offsets):
        end = _back_to_word(starts_word, start + size, lowest=start + overlap + 1)
        chunks.append((offsets[start][0], offsets[end - 1][1]))
        start = _back_to_word(starts_word, end - overlap, lowest=start + 1)
    chunks.append((offsets[start][0], offsets[-1][1]))
    return chunks


def _parts(passage: Passage, full_text: str, offsets: Sequence[Span], size: int, overlap: int) -> list[Part]:
    """Cut one passage, and repeat its title in every chunk."""
    head = len(passage.title) + 1 if passage.title else 0
    n_head = sum(end <= head for _, end in offsets)
    if not n_head or len(offsets) <= size or 2 * n_head > size:
        return [Part(0, start, end) for start, end in chunk_spans(full_text, offsets, size, overlap)]
    body = [(max(begin - head, 0), end - head) for begin, end in offsets[n_head:]]
    body_size = size - n_head
    # The overlap was chosen for whole chunks; it must not fill what the title leaves of one.
    spans = chunk_spans(passage.text, body, body_size, min(overlap, body_size // 2))
    return [Part(head, head + start, head + end) for start, end in spans]


def _starts_word(text: str, begin: int) -> bool:
    """Return whether a token at this character begins a word. Some tokenizers include the space before it."""
    return begin == 0 or text[begin - 1].isspace() or text[begin : begin + 1].isspace()


def _back_to_word(starts_word: Sequence[bool], index: int, lowest: int) -> int:
    """Return the last token from `lowest` to `index` that begins a word; `index` if none does."""
    return next((i for i in range(index, lowest - 1, -1) if starts_word[i]), index)
