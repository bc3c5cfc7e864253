"""The memory and the time of one step of the retriever: a small batch, a large one by parts, and the large one at once.

    python tests/benchmarks/large_batch.py

In one process, in this order: a peak never falls, so each line shows what its step needs beyond the ones before.
"""

from __future__ import annotations

import resource
import time

import torch

from fedrag.config.training_settings import RetrieverConfig
from fedrag.models.retriever import Retriever
from fedrag.training.losses import Losses
from fedrag.training.optimizer import MasterOptimizer
from fedrag.training.retriever_examples import PassageText, RetrieverExample
from fedrag.training.retriever_loss import BatchLoss
from fedrag.weights.store import find_model

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
STEPS = ((16, 0), (64, 16), (64, 0))
"""Questions of a step, and texts that are read at a time; 0: all."""


def examples(count: int) -> list[RetrieverExample]:
    """Return questions, each with a passage of 70 tokens of its own."""
    rest = "has a copper owl on the roof and a tram line " * 6
    passages = [PassageText(str(number), f"Room {number:03} {rest}") for number in range(count)]
    return [RetrieverExample(f"What is in room {p.passage_id}?", frozenset({p.passage_id}), p) for p in passages]


def peak_mib() -> float:
    """Return the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Take each step once and print its line."""
    torch.set_num_threads(1)
    retriever = Retriever.load(find_model(MODEL), RetrieverConfig(), "cpu")
    loaded = peak_mib()
    for count, size in STEPS:
        settings = RetrieverConfig(mini_batch_size=size)
        batch_loss = BatchLoss.over(retriever, examples(count), settings, Losses())
        optimizer = MasterOptimizer(retriever.parameters(), settings)
        started = time.process_time()
        batch_loss.backward(examples(count), optimizer)
        seconds, more = time.process_time() - started, peak_mib() - loaded
        print(f"{count} questions, {size or 'all'} texts at a time: {more:.0f} MiB more, {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
