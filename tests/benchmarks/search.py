"""Searching a million vectors: the index that a large corpus gets by itself, against exact search.

The vectors are MiniLM's for every distinct sentence of the site folders below data/ and simulations/data/ (passages
cut after . ! ?, and questions), repeated up to a million, each copy with seeded noise of norm 0.1 added and brought to
length one again. A thousand questions are left out of the corpus. What is searched for, ten passages each:
a thousand further noisy copies of sentences of the corpus, where the ten are to be told from other copies of the same
sentence; and the thousand questions, where they lie farther away, as in use. The share of the ten that exact search
returns is the recall. How many distinct sentences there were is among the figures; import the data sets first, the
more sentences the better. Their vectors are kept in build/bench, since encoding them takes longest.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bench import RESULTS, Row, in_turn, main, peak_mb
from models import load_retriever

from fedrag.data.site_folder import load_sites
from fedrag.retrieval.index import EXACT_CHUNKS, PassageIndex
from fedrag.types import Array, Hit

ROOT = Path(__file__).parents[2]
VECTORS, QUERIES, K, NOISE, TURNS = 1_000_000, 1_000, 10, 0.1, 3


def sentences() -> tuple[list[str], list[str]]:
    """Return the distinct sentences of all passages, and the distinct questions, of every site folder here."""
    roots = [folder for data in ("data", "simulations/data") for folder in sorted((ROOT / data).glob("*"))]
    found: dict[str, None] = {}
    questions: dict[str, None] = {}
    for site in (site for root in roots for site in load_sites(root)):
        for passage in site.passages:
            parts = (part.strip() for part in re.split(r"(?<=[.!?])\s+", passage.text))
            found |= dict.fromkeys(part for part in parts if part)
        for question in (*site.train, *site.validation, *site.test):
            questions[question.question] = None
    return list(found), list(questions)


def embedded(texts: Sequence[str]) -> Array:
    """Return the untouched retriever's vectors, from build/bench where they are kept."""
    name = hashlib.blake2b("\x1f".join(texts).encode(), digest_size=8).hexdigest()
    path = RESULTS / f"vectors-{name}.npy"
    if not path.exists():
        RESULTS.mkdir(parents=True, exist_ok=True)
        np.save(path, load_retriever().encode_passages(texts))
    vectors: Array = np.load(path)
    return vectors


def noisy(vectors: Array, rng: np.random.Generator) -> Array:
    """Return the vectors, each with noise of norm NOISE added, of length one."""
    noise = rng.standard_normal(vectors.shape, dtype=np.float32)
    moved = vectors + noise * (NOISE / np.linalg.norm(noise, axis=1, keepdims=True))
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def corpus_of(base: Array, rng: np.random.Generator) -> Array:
    """Return VECTORS noisy copies, one pass over the base after the other."""
    vectors = np.empty((VECTORS, base.shape[1]), np.float32)
    for start in range(0, VECTORS, len(base)):
        rows = vectors[start : start + len(base)]
        rows[:] = noisy(base[: len(rows)], rng)
    return vectors


def recall(found: Sequence[Sequence[Hit]], right: Sequence[Sequence[Hit]]) -> float:
    """Return the share of the right hits that were found, in per cent."""
    pairs = zip(found, right, strict=True)
    shares = [len({h.chunk for h in a} & {h.chunk for h in b}) / len(b) for a, b in pairs]
    return 100 * sum(shares) / len(shares)


def index_of(vectors: Array, exact_chunks: int) -> PassageIndex:
    """Index vectors as passages of one chunk each."""
    return PassageIndex([f"p{row}" for row in range(len(vectors))], [""] * len(vectors), vectors, exact_chunks)


def measure() -> list[Row]:
    """Compare the index of a large corpus with exact search."""
    rng = np.random.default_rng(0)
    texts, questions = sentences()
    held_out = rng.permutation(len(questions))
    asked = embedded(questions)
    base = np.concatenate([embedded(texts), asked[held_out[QUERIES:]]])
    queries = {"noisy copies": noisy(base[rng.integers(0, len(base), QUERIES)], rng)}
    queries["questions"] = np.ascontiguousarray(asked[held_out[:QUERIES]])
    vectors = corpus_of(base, rng)
    before = peak_mb()
    start = time.perf_counter()
    index = index_of(vectors, EXACT_CHUNKS)
    index.search(vectors[:1], K)  # the lists are built when they are first searched
    seconds = time.perf_counter() - start
    figures = {"distinct_sentences": len(base), "vectors": VECTORS, "queries": QUERIES}
    memory = {"vectors_mb": vectors.nbytes / 1e6, "peak_without_index_mb": before}
    rows = [
        Row(f"index of {VECTORS:,} vectors: built", seconds, "s", 600, most=True, figures=figures),
        Row(f"index of {VECTORS:,} vectors: peak memory of the process", peak_mb(), "MB", figures=memory),
    ]
    exact = index_of(vectors, len(vectors))
    for what, wanted in queries.items():
        rows += _searched(what, wanted, index, exact)
    return [*rows, _border(vectors, queries["questions"])]


def _searched(what: str, queries: Array, index: PassageIndex, exact: PassageIndex) -> list[Row]:
    found: dict[str, list[list[Hit]]] = {}

    def lists() -> None:
        found["lists"] = index.search(queries, K)

    def exactly() -> None:
        found["exact"] = exact.search(queries, K)

    lists()
    taken = in_turn(TURNS, lists=lists, exact=exactly)
    times = {f"{name}_s": seconds for name, seconds in taken.items()}
    return [
        Row(f"search for {QUERIES:,} {what}", taken["lists"], "s", 1, most=True, figures=times),
        Row(f"search for {QUERIES:,} {what}: recall@{K}", recall(found["lists"], found["exact"]), "%", 95),
    ]


def _border(vectors: Array, queries: Array) -> Row:
    """Time exact search in smaller corpora, up to the largest that is always searched exactly."""
    sizes = [size for size in (10_000, 30_000, EXACT_CHUNKS) if size <= len(vectors)]
    indexes = {f"{size}_vectors": index_of(vectors[:size], size) for size in sizes}
    runs = {name: lambda index=index: index.search(queries, K) for name, index in indexes.items()}
    taken = in_turn(TURNS, **runs)
    what = f"exact search for {QUERIES:,} questions in {sizes[-1]:,} vectors"
    return Row(what, taken[f"{sizes[-1]}_vectors"], "s", figures={f"{n}_s": s for n, s in taken.items()})


if __name__ == "__main__":
    main(measure)
