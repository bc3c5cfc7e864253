"""Work for a GPU that is recorded once and played again as a whole.

A pass of a small model is thousands of short kernels: launching them one by one takes several times as long as they
run. A CUDA graph launches all of them at once. It runs the same kernels on tensors that stay where they are, so that
the numbers are those of work that is not recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from transformers import PreTrainedModel

log = logging.getLogger("fedrag.models")

T = TypeVar("T")

_SMALL = 1 / 16  # of the GPU's memory, for all weights
MOST_RECORDINGS = 64  # of one kind; each takes some tens of megabytes beside what all of them share


@dataclass(frozen=True, slots=True)
class Recording(Generic[T]):
    """Recorded work.

    Attributes:
        play: Does it again, with what its inputs hold then.
        made: What it returned, in tensors that are written anew each time.
    """

    play: Callable[[], None]
    made: T


class Recorder:
    """Records work, all of it in the same memory: no two recordings play at the same time.

    Args:
        device: Where the work is done; on a CPU nothing is recorded.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._works = device.type == "cuda"
        self._recorded = 0
        self._pool: Any = None
        self._stream: Any = None

    @property
    def recorded(self) -> int:
        """How many recordings were made."""
        return self._recorded

    def record(self, work: Callable[[], T]) -> Recording[T] | None:
        """Record work; None where that is impossible.

        Args:
            work: Reads and writes tensors that stay where they are; it is done twice before it is recorded.
        """
        if not self._works:
            return None
        try:
            self._set_up()
            graph = torch.cuda.CUDAGraph()
            with self._aside():
                work()  # what libraries set up when they see a shape for the first time cannot be recorded
                with _looking_refused():
                    work()
            with torch.cuda.graph(graph, pool=self._pool.id, stream=self._stream):
                made = work()
        except RuntimeError as error:
            log.info("passes are not recorded: %s", error)
            self._works = False
            return None
        self._recorded += 1
        return Recording(graph.replay, made)

    def _set_up(self) -> None:
        if self._pool is not None:
            return
        self._pool, self._stream = torch.cuda.MemPool(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        # The first backward pass starts torch's threads for it, which must not happen in a recording.
        with torch.inference_mode(False):
            torch.ones(1, device=self._device, requires_grad=True).sum().backward()  # type: ignore[no-untyped-call]

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Work where recordings work, with their memory: the backward pass too, which must not be in another thread."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with (
            torch.cuda.stream(self._stream),
            torch.cuda.use_mem_pool(self._pool),
            torch.autograd.set_multithreading_enabled(False),
        ):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)


@contextmanager
def _looking_refused() -> Iterator[None]:
    """Refuse work that looks at what the GPU has computed, as a mixture of experts does.

    It cannot be recorded, and a recording that fails leaves torch's memory and random numbers unusable.

    Raises:
        RuntimeError: It does.
    """
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def waits_for_launches(model: PreTrainedModel) -> bool:
    """Return whether a model is so small that a GPU waits for its kernels to be launched.

    A large one keeps the GPU busy by itself, and needs the memory that recordings and what they read would hold.
    """
    memory = torch.cuda.get_device_properties(model.device).total_memory
    weights: int = model.get_memory_footprint()  # type: ignore[no-untyped-call]  # transformers gives it no types
    return weights <= _SMALL * memory


def rounded_up(number: int) -> int:
    """Return the next number with at most two leading bits set, so that few numbers serve all.

    >>> [rounded_up(number) for number in (1, 3, 5, 7, 13, 17, 40, 100)]
    [1, 3, 6, 8, 16, 24, 48, 128]
    """
    power: int = 1 << (number - 1).bit_length()
    return 3 * power // 4 if number <= 3 * power // 4 else power
