"""An index on disk: whatever it depends on makes another one, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedrag.data.chunking import chunk_passages
from fedrag.models.retriever import Retriever
from fedrag.rag import indexing
from fedrag.rag.indexing import build_index
from fedrag.types import Passage, Tensors

PASSAGES = (
    Passage("rye", "The rye dough rests for eighteen hours. " * 4, "Rye bread"),
    Passage("tyre", "A flat tyre is repaired for four crowns."),
)

Load = Callable[..., Retriever]


def moved(retriever: Retriever) -> Tensors:
    return {name: tensor + np.float32(0.05) for name, tensor in retriever.initial_state(seed=0).items()}


def indexes(folder: Path) -> dict[str, int]:
    """Return the indexes and when each was written."""
    return {path.name: (path / "vectors.npy").stat().st_mtime_ns for path in folder.iterdir()}


def test_chunks_of_an_index_are_those_of_the_chunking(load_retriever: Load, tmp_path: Path) -> None:
    retriever = load_retriever()
    chunks = chunk_passages(PASSAGES, retriever.encoder.tokenizer, retriever.chunk_tokens, 8)
    vectors = retriever.encode_passages([chunk.text for chunk in chunks])
    assert len(chunks) > 2
    for index in (
        build_index(retriever, PASSAGES, 8),
        build_index(retriever, PASSAGES, 8, tmp_path),
        build_index(retriever, PASSAGES, 8, tmp_path),
    ):
        assert list(index.texts) == [chunk.text for chunk in chunks]
        assert index.texts[1:3] == [chunk.text for chunk in chunks[1:3]]
        assert list(index.passage_ids) == [chunk.passage_id for chunk in chunks]
        np.testing.assert_array_equal(index.vectors, vectors)


def test_the_same_passages_are_encoded_once(load_retriever: Load, tmp_path: Path) -> None:
    build_index(load_retriever(), PASSAGES, 8, tmp_path)
    written = indexes(tmp_path)
    build_index(load_retriever(), PASSAGES, 8, tmp_path)
    assert indexes(tmp_path) == written
    [folder] = tmp_path.iterdir()
    vectors = np.load(folder / "vectors.npy")
    np.save(folder / "vectors.npy", vectors[:, ::-1])  # shows that it is what is searched
    np.testing.assert_array_equal(build_index(load_retriever(), PASSAGES, 8, tmp_path).vectors, vectors[:, ::-1])


def test_no_text_of_a_passage_is_stored(load_retriever: Load, tmp_path: Path) -> None:
    build_index(load_retriever(), PASSAGES, 8, tmp_path)
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert not any(word in stored for word in (b"rye", b"dough", b"Rye bread", b"crowns"))


@pytest.mark.parametrize(
    "changed",
    [
        PASSAGES[:1],
        PASSAGES[::-1],
        (PASSAGES[0], replace(PASSAGES[1], id="t")),
        (PASSAGES[0], replace(PASSAGES[1], text="A flat tyre is repaired for five crowns.")),
        (replace(PASSAGES[0], title="Rye"), PASSAGES[1]),
        (replace(PASSAGES[0], title=None), PASSAGES[1]),
    ],
)
def test_other_passages_are_another_index(load_retriever: Load, tmp_path: Path, changed: tuple[Passage, ...]) -> None:
    build_index(load_retriever(), PASSAGES, 8, tmp_path)
    index = build_index(load_retriever(), changed, 8, tmp_path)
    np.testing.assert_array_equal(index.vectors, build_index(load_retriever(), changed, 8).vectors)
    assert list(index.texts) == list(build_index(load_retriever(), changed, 8).texts)
    assert len(indexes(tmp_path)) == 2


def test_another_overlap_length_or_prompt_is_another_index(load_retriever: Load, tmp_path: Path) -> None:
    retriever = load_retriever()
    build_index(retriever, PASSAGES, 8, tmp_path)
    build_index(retriever, PASSAGES, 4, tmp_path)
    assert len(indexes(tmp_path)) == 2
    retriever.encoder.prompts = {"query": "", "document": "passage: "}
    build_index(retriever, PASSAGES, 8, tmp_path)
    assert len(indexes(tmp_path)) == 3
    retriever.encoder.prompts = {"query": "", "document": "section: "}  # as long as the one before
    build_index(retriever, PASSAGES, 8, tmp_path)
    assert len(indexes(tmp_path)) == 4


@pytest.mark.parametrize(
    ("settings", "indexes_then"),
    [
        ({"chunk_tokens": 30}, 2),
        ({"passage_prompt": "p"}, 2),
        ({"truncate_dim": 16}, 2),
        ({"similarity": "dot"}, 2),
        ({"query_prompt": "query: "}, 1),
        ({"contrastive": {"scale": 3.0}}, 1),
    ],
)
def test_settings_that_change_the_vectors_of_passages_make_another_index(
    load_retriever: Load, tmp_path: Path, settings: dict[str, object], indexes_then: int
) -> None:
    build_index(load_retriever(), PASSAGES, 8, tmp_path)
    index = build_index(load_retriever(**settings), PASSAGES, 8, tmp_path)
    assert len(indexes(tmp_path)) == indexes_then
    np.testing.assert_array_equal(index.vectors, build_index(load_retriever(**settings), PASSAGES, 8).vectors)


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_a_trained_passage_side_is_another_index_and_the_untouched_one_stays(
    load_retriever: Load, tmp_path: Path, weights: str
) -> None:
    retriever = load_retriever(weights=weights, contrastive={"side": "both"})
    untouched = build_index(retriever, PASSAGES, 8, tmp_path)
    retriever.set_state(moved(retriever))
    trained = build_index(retriever, PASSAGES, 8, tmp_path)
    assert np.abs(trained.vectors - untouched.vectors).max() > 1e-3
    assert len(indexes(tmp_path)) == 2
    with retriever.untouched():
        again = build_index(retriever, PASSAGES, 8, tmp_path)
    np.testing.assert_array_equal(again.vectors, untouched.vectors)
    assert len(indexes(tmp_path)) == 2


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_passages_are_not_encoded_anew_if_the_query_side_alone_is_trained(
    load_retriever: Load, tmp_path: Path, weights: str
) -> None:
    retriever = load_retriever(weights=weights, contrastive={"side": "query"})
    build_index(retriever, PASSAGES, 8, tmp_path)
    written = indexes(tmp_path)
    retriever.set_state(moved(retriever))
    build_index(retriever, PASSAGES, 8, tmp_path)
    with retriever.untouched():
        build_index(retriever, PASSAGES, 8, tmp_path)
    assert indexes(tmp_path) == written


def test_terms_are_indexed_once_whatever_the_retriever_learnt(
    load_retriever: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever = load_retriever(loss="contrastive")
    built = build_index(retriever, PASSAGES, 8, tmp_path, "hybrid")
    monkeypatch.setattr(indexing, "index_terms", lambda texts: pytest.fail("indexed again"))
    retriever.set_state(moved(retriever))
    again = build_index(retriever, PASSAGES, 8, tmp_path, "hybrid")
    question = ["What does a flat tyre cost?"]
    by_terms = [build_index(retriever, PASSAGES, 8, tmp_path, "bm25"), built, again]
    for index in by_terms:
        assert index.search(retriever.encode_queries(question), 1, question)[0][0].passage_id == "tyre"
    assert by_terms[0].vectors.shape == (len(built.texts), 0)
    monkeypatch.undo()
    build_index(retriever, (*PASSAGES, Passage("new", "A bell.")), 8, tmp_path, "bm25")
    assert len([path for path in tmp_path.iterdir() if (path / "hashes.npy").exists()]) == 2


def test_damaged_terms_are_indexed_again(load_retriever: Load, tmp_path: Path) -> None:
    index = build_index(load_retriever(), PASSAGES, 8, tmp_path, "bm25")
    [folder] = [path for path in tmp_path.iterdir() if (path / "hashes.npy").exists()]
    (folder / "scores.npy").write_bytes(b"")
    found = build_index(load_retriever(), PASSAGES, 8, tmp_path, "bm25")
    for text in ("flat tyre", "rye dough"):
        vectors = np.zeros((1, 0), np.float32)
        assert found.search(vectors, 2, [text]) == index.search(vectors, 2, [text])
