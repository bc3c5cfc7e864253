"""Chunks of long passages."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from fedrag.data.chunking import Chunk, chunk_passages, chunk_spans
from fedrag.errors import ConfigError, ModelError
from fedrag.types import Passage


def chunk_text(text: str, offsets: Sequence[tuple[int, int]], size: int, overlap: int) -> list[str]:
    return [text[start:end] for start, end in chunk_spans(text, offsets, size, overlap)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece on letters: every letter of a word is a token, and its backend truncates at 4."""
    letters = "abcdefghijklmnopqrstuvwxyz."
    pieces = ["[UNK]", *letters, *(f"##{letter}" for letter in letters)]
    backend = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.enable_truncation(4)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", model_max_length=4)


def spans(words: Sequence[str]) -> list[tuple[int, int]]:
    """Return the places of words that stand with a space between them."""
    places, start = [], 0
    for word in words:
        places.append((start, start + len(word)))
        start += len(word) + 1
    return places


def test_windows_share_the_overlap_and_the_last_ends_with_the_text() -> None:
    words = ["a", "b", "c", "d", "e", "f", "g"]
    assert chunk_text(" ".join(words), spans(words), size=4, overlap=2) == ["a b c d", "c d e f", "e f g"]
    assert chunk_text(" ".join(words), spans(words), size=4, overlap=0) == ["a b c d", "e f g"]


def test_a_text_that_fits_is_left_as_it_is() -> None:
    assert chunk_text("  a b ", [(2, 3), (4, 5)], size=2, overlap=1) == ["  a b "]
    assert chunk_text(" ", [], size=2, overlap=1) == [" "]


def test_chunks_are_cut_between_words_where_they_can_be() -> None:
    text = "ab cdef gh"  # one token a letter
    offsets = [(i, i + 1) for i in range(len(text)) if text[i] != " "]
    assert chunk_text(text, offsets, size=5, overlap=0) == ["ab", "cdef", "gh"]
    assert chunk_text("abcdefgh", [(i, i + 1) for i in range(8)], size=5, overlap=1) == ["abcde", "efgh"]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 8))
def test_every_token_is_in_a_chunk_and_no_chunk_is_too_long(lengths: list[int], size: int, overlap: int) -> None:
    text = " ".join("".join(chr(0x4E00 + 50 * w + i) for i in range(n)) for w, n in enumerate(lengths))
    offsets = [(i, i + 1) for i in range(len(text)) if text[i] != " "]
    chunks = chunk_text(text, offsets, size, min(overlap, size - 1))
    assert set("".join(chunks)) | {" "} == set(text) | {" "}
    assert all(0 < len(chunk.replace(" ", "")) <= size for chunk in chunks)
    assert all(chunk in text for chunk in chunks)


def test_an_overlap_as_large_as_the_chunk_is_refused() -> None:
    with pytest.raises(ConfigError, match="chunks of 4 tokens cannot share 4"):
        chunk_text("a", [(0, 1)], size=4, overlap=4)


def test_passages_are_chunked_whole_and_keep_their_ids(tokenizer: PreTrainedTokenizerFast) -> None:
    passages = [Passage("p1", "aa bb cc dd"), Passage("p2", "ee")]
    chunks = chunk_passages(passages, tokenizer, size=4, overlap=2)
    assert chunks == [
        Chunk("p1", "aa bb"),
        Chunk("p1", "bb cc"),
        Chunk("p1", "cc dd"),
        Chunk("p2", "ee"),
    ]


def test_every_chunk_of_a_titled_passage_starts_with_the_title(tokenizer: PreTrainedTokenizerFast) -> None:
    chunks = chunk_passages([Passage("p1", "aa bb cc", "T")], tokenizer, size=5, overlap=0)
    assert [chunk.text for chunk in chunks] == ["T\naa bb", "T\ncc"]
    assert all(len(tokenizer(chunk.text)["input_ids"]) <= 5 for chunk in chunks)
    assert chunk_passages([Passage("p1", "aa bb", "T")], tokenizer, size=5, overlap=0) == [Chunk("p1", "T\naa bb")]


def test_a_title_of_more_than_half_a_chunk_is_not_repeated(tokenizer: PreTrainedTokenizerFast) -> None:
    chunks = chunk_passages([Passage("p1", "aa bb", "ttt")], tokenizer, size=5, overlap=0)
    assert [chunk.text for chunk in chunks] == ["ttt\naa", "bb"]


def test_a_long_title_and_a_large_overlap_still_make_progress(tokenizer: PreTrainedTokenizerFast) -> None:
    chunks = chunk_passages([Passage("p1", "a b c d e", "ttt")], tokenizer, size=6, overlap=5)
    assert [chunk.text for chunk in chunks] == ["ttt\na b c", "ttt\nc d e"]


def test_long_texts_raise_no_warning(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.get_logger("transformers"), "propagate", True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(chunk_passages([Passage("p1", "word " * 99)], tokenizer, size=4, overlap=0)) == 99
    assert not caplog.records


def test_no_passages_make_no_chunks(tokenizer: PreTrainedTokenizerFast) -> None:
    assert chunk_passages([], tokenizer, size=4, overlap=0) == []


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        is_fast = False
        name_or_path = "old-model"

    with pytest.raises(ModelError, match="old-model: a fast tokenizer is needed"):
        chunk_passages([Passage("p1", "a")], Slow(), size=4, overlap=0)  # type: ignore[arg-type]


def test_a_titled_passage_is_cut_from_the_first_token_on_that_does_not_fit(tokenizer: PreTrainedTokenizerFast) -> None:
    passage = Passage("p1", "a b c d", "t u")
    for size, texts in {6: ["t u\na b c d"], 5: ["t u\na b c", "t u\nd"], 4: ["t u\na b", "t u\nc d"]}.items():
        assert [chunk.text for chunk in chunk_passages([passage], tokenizer, size, overlap=0)] == texts


@pytest.mark.parametrize("overlap", [0, 1, 2, 3])
def test_a_text_exactly_as_long_as_a_chunk_is_one(tokenizer: PreTrainedTokenizerFast, overlap: int) -> None:
    for passage in (Passage("p1", "a b c d"), Passage("p1", "b c d", "a"), Passage("p1", "c  d ", "a b")):
        assert chunk_passages([passage], tokenizer, size=4, overlap=overlap) == [Chunk("p1", passage.full_text)]


def test_windows_of_which_the_last_is_full_are_no_more_than_it_takes() -> None:
    words = ["a", "b", "c", "d", "e", "f"]
    assert chunk_text(" ".join(words), spans(words), size=3, overlap=0) == ["a b c", "d e f"]
    assert chunk_text(" ".join(words), spans(words), size=4, overlap=2) == ["a b c d", "c d e f"]
