"""Passes through one model beside one another, in two threads that share the cores.

Between the large products of a transformer lie many small operations that keep one core busy and let the others wait.
Two passes of half the size, each with half the cores, fill these gaps: on two cores training took 0.91 of the time
(tests/benchmarks/README.md). What is computed depends on torch's number of threads alone, and not on which pass is
done first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch
from transformers import PreTrainedConfig

T = TypeVar("T")

_PASSES = 2


class Run(Protocol):
    """Runs jobs and gives their results in the jobs' order, each as soon as it and those before it are there."""

    def __call__(self, jobs: Iterable[Callable[[], T]], /) -> Iterator[T]:
        """Run the jobs."""


def passes_at_a_time(*, on_gpu: bool) -> int:
    """Return how many passes through a model run at a time, where none disturbs another; a GPU is busy with one."""
    return 1 if on_gpu or torch.get_num_threads() < _PASSES else _PASSES


def changes_with_texts(config: PreTrainedConfig) -> bool:
    """Return whether passes through a model change what others use: rotary embeddings of some kinds grow with texts."""
    scaling = getattr(config.get_text_config(), "rope_parameters", None) or {}
    return any(kind in str(scaling) for kind in ("dynamic", "longrope"))


@contextmanager
def thread_pool(passes: int, *, same_threads: bool = False) -> Iterator[Run]:
    """Give a function that runs jobs, so many at a time; a job alone has all cores.

    Jobs that have not begun are dropped when the context ends, by an error for example.

    Args:
        passes: Jobs at a time.
        same_threads: A job alone has no more threads than one of several, so that it computes the same bits.
    """
    if passes == 1:
        yield lambda jobs: (job() for job in jobs)
        return
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(passes)

    def run(jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        waiting = list(jobs)
        if len(waiting) == 1 and not same_threads:
            yield waiting[0]()
            return
        torch.set_num_threads(threads // passes)  # the pool's threads take the number that they find
        try:
            futures: list[Future[T]] = [pool.submit(job) for job in waiting]
            for future in futures:
                yield future.result()
        finally:
            torch.set_num_threads(threads)

    try:
        yield run
    finally:
        pool.shutdown(cancel_futures=True)
