"""Two passes through one model at a time, in two threads that share the cores.

Between the large products of a transformer lie many small operations that keep one core busy while the others wait. Two
passes of half the size, each with half the cores, fill these gaps: on two cores training took 0.91 of the time
(tests/benchmarks/README.md). The results depend on torch's number of threads alone, not on which pass ends first.
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


class RunJobs(Protocol):
    """Runs jobs and yields their results in the order of the jobs, each as soon as it is complete."""

    def __call__(self, jobs: Iterable[Callable[[], T]], /) -> Iterator[T]:
        """Run the jobs."""


def passes_at_a_time(*, on_gpu: bool, threads: int | None = None) -> int:
    """Return how many independent passes run at a time; a single one keeps a GPU busy.

    Args:
        on_gpu: Whether they run on a GPU.
        threads: torch's number of threads; None: the current one.
    """
    return 1 if on_gpu or (threads or torch.get_num_threads()) < _PASSES else _PASSES


def has_dynamic_rope(config: PreTrainedConfig) -> bool:
    """Return whether a model's rotary embeddings change with the length of the texts, so that passes affect others."""
    scaling = getattr(config.get_text_config(), "rope_parameters", None) or {}
    return any(kind in str(scaling) for kind in ("dynamic", "longrope"))


@contextmanager
def thread_pool(passes: int, *, same_threads: bool = False) -> Iterator[RunJobs]:
    """Yield a function that runs jobs, several at a time; a single job has all cores.

    When the context ends, because of an error for example, jobs that have not begun are dropped.

    Args:
        passes: Jobs at a time.
        same_threads: Give a single job no more threads than one of several, so that it computes the same bits.
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
        torch.set_num_threads(threads // passes)  # the threads of the pool inherit this number
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
