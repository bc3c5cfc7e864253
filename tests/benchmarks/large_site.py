"""A large site: 200,000 passages, 2,000 questions, and one passage of about a thousand chunks.

Passages are made of words drawn by chance, cut into chunks by MiniLM's tokenizer. Vectors are drawn by chance from the
text, as long as MiniLM's, since encoding is not the question here; so ranks are by chance, too, and take as long to
count as any. Measured are the search for ten passages and the rank of the labelled one of each question, once as in
training and once as in an evaluation; what the process holds at most above the loaded models, with the passages
themselves; and how long the index takes to be opened again. A run of ten rounds on the tiny models then counts how
often passages are encoded if the retriever does not learn.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bench import Row, main
from models import SPACE, config

from fedrag.config.scenario import Config
from fedrag.models.retriever import Retriever
from fedrag.rag.indexing import build_index
from fedrag.rag.pipeline import rank, retrieve
from fedrag.simulation.simulate import simulate
from fedrag.types import Array, Passage, Question
from fedrag.weights.fetch import fetch_models
from fedrag.weights.store import find_model

PASSAGES, QUESTIONS, K, ROUNDS = 200_000, 2_000, 10, 10
WORDS_PER_PASSAGE, LONG_PASSAGE_WORDS = 60, 80_000
SECONDS, MEGABYTES = 60.0, 2_000.0
DIM = 384


class ByChance(Retriever):
    """A retriever whose vectors are drawn by chance, seeded by the text; it counts the texts of passages."""

    encoded = 0

    def encode_queries(self, texts: Sequence[str]) -> Array:
        """Return unit vectors (texts, dim)."""
        vectors = np.empty((len(texts), DIM), np.float32)
        for row, text in enumerate(texts):
            vectors[row] = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIM, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_passages(self, texts: Sequence[str]) -> Array:
        """Return unit vectors (texts, dim)."""
        self.encoded += len(texts)
        return self.encode_queries(texts)


def passages() -> list[Passage]:
    """Return passages of words by chance; the first is very long."""
    random = np.random.default_rng(0)
    words = np.array(["".join(random.choice(list("aeioklmnrstv"), 5)) for _ in range(5_000)])
    lengths = [LONG_PASSAGE_WORDS, *[WORDS_PER_PASSAGE] * (PASSAGES - 1)]
    return [Passage(f"p{i}", " ".join(words[random.integers(0, len(words), n)])) for i, n in enumerate(lengths)]


def questions() -> list[Question]:
    """Return questions, each with one labelled passage."""
    random = np.random.default_rng(1)
    right = random.integers(0, PASSAGES, QUESTIONS)
    return [Question(f"q{i}", f"Question number {i}?", ("x",), (f"p{row}",)) for i, row in enumerate(right)]


def held_mb() -> float:
    """Return the most main memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def measure() -> list[Row]:
    """Measure search, ranks, memory and how often passages are encoded."""
    with tempfile.TemporaryDirectory() as folder:
        return [*_searched(Path(folder) / "indexes"), _encoded_in_ten_rounds(Path(folder))]


def _searched(folder: Path) -> list[Row]:
    settings = config()
    retriever = ByChance.load(find_model(settings.models.retriever), settings.retriever, "cpu")
    models = held_mb()
    corpus, asked = passages(), questions()
    overlap = settings.rag.chunk_overlap
    built = _seconds(lambda: build_index(retriever, corpus, overlap, folder))
    encoded = retriever.encoded
    opened = _seconds(lambda: build_index(retriever, corpus, overlap, folder))
    index = build_index(retriever, corpus, overlap, folder)
    as_in_training = _seconds(lambda: retrieve(retriever, index, [q.question for q in asked], K))
    as_measured = _seconds(lambda: rank(retriever, index, asked, K))
    longest = max(np.unique(np.array(index.passage_ids), return_counts=True)[1])
    what = f"{PASSAGES:,} passages, {QUESTIONS:,} questions"
    figures = {
        "chunks": len(index.texts),
        "chunks_of_the_longest_passage": int(longest),
        "search_s": as_in_training,
        "best_and_ranks_s": as_measured,
        "chunked_and_written_s": built,
        "texts_encoded_when_opened_again": retriever.encoded - encoded,
    }
    memory = {"models_mb": models, "peak_mb": held_mb()}
    return [
        Row(f"{what}: search and ranks", as_in_training + as_measured, "s", SECONDS, most=True, figures=figures),
        Row(f"{what}: memory above the models", held_mb() - models, "MB", MEGABYTES, most=True, figures=memory),
        Row(f"{PASSAGES:,} passages: the index opened again", opened, "s"),
    ]


def _seconds(run: object) -> float:
    start = time.perf_counter()
    assert callable(run)
    run()
    return time.perf_counter() - start


def _encoded_in_ten_rounds(folder: Path) -> Row:
    """Count how often each chunk is encoded in a run whose generator alone learns, by the texts that are encoded."""
    os.environ["FEDRAG_HOME"] = str(folder / "home")
    fetch_models(("fedrag/tiny-causal", "fedrag/tiny-encoder"))
    encoded: dict[str, int] = {}
    encode = Retriever.encode_passages

    def counted(retriever: Retriever, texts: Sequence[str]) -> Array:
        for text in texts if len(texts) > 1 else ():  # one text alone tells the index's key
            encoded[text] = encoded.get(text, 0) + 1
        return encode(retriever, texts)

    Retriever.encode_passages = counted  # type: ignore[method-assign]
    try:
        simulate(_ten_rounds(), out=folder / "run")
    finally:
        Retriever.encode_passages = encode  # type: ignore[method-assign]
    most = max(encoded.values())
    what = f"{ROUNDS} rounds whose retriever does not learn: times that a passage is encoded"
    return Row(what, most, "x", 1, most=True, figures={"chunks": len(encoded), "texts": sum(encoded.values())})


def _ten_rounds() -> Config:
    scenario = f"""
name = "ten-rounds"
data = {{ sites = "{SPACE}", only = ["esa", "nasa"] }}
models = {{ generator = "fedrag/tiny-causal", retriever = "fedrag/tiny-encoder" }}
rag = {{ prompt_tokens = 512, answer_tokens = 4 }}
federation = {{ schedule = "generator", rounds = {ROUNDS}, validate_every = 1 }}
evaluation = {{ generate = false, baselines = [] }}
"""
    return Config.from_toml(scenario)


if __name__ == "__main__":
    main(measure)
