"""CUDA graphs: GPU work that is captured once and replayed as a whole.

A pass of a small model launches thousands of short kernels, and the launches take several times as long as the kernels
run. A CUDA graph launches all of them at once. A replay runs the same kernels on the same tensors, so it computes the
same numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

log = logging.getLogger("fedrag.models")

T = TypeVar("T")

_SMALL = 1 / 16  # of the GPU's memory, for all weights
MOST_GRAPHS = 64  # each takes some tens of megabytes besides the memory that all of them share


@dataclass(frozen=True, slots=True)
class CapturedGraph(Generic[T]):
    """Captured work.

    Attributes:
        replay: Runs the work again on the current values of its inputs.
        output: What the work returned; each replay overwrites its tensors.
    """

    replay: Callable[[], None]
    output: T


class GraphCapture:
    """Captures work into CUDA graphs that share one memory pool, so no two of them may replay at the same time.

    Args:
        device: Where the work runs; on a CPU nothing is captured.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._works = device.type == "cuda"
        self._captured = 0
        self._pool: Any = None
        self._stream: Any = None

    @property
    def captured(self) -> int:
        """The number of graphs that were captured."""
        return self._captured

    def capture(self, work: Callable[[], T]) -> CapturedGraph[T] | None:
        """Capture work; return None where that is impossible.

        Args:
            work: Reads and writes the same tensors in each call. It runs twice before the capture.
        """
        if not self._works:
            return None
        try:
            self._set_up()
            graph = torch.cuda.CUDAGraph()
            with self._capture_stream():
                work()  # libraries set themselves up at the first call with a shape, which cannot be captured
                with _synchronization_refused():
                    work()
            with torch.cuda.graph(graph, pool=self._pool.id, stream=self._stream):
                output = work()
        except RuntimeError as error:
            log.info("no CUDA graphs: %s", error)
            self._works = False
            return None
        self._captured += 1
        return CapturedGraph(graph.replay, output)

    def _set_up(self) -> None:
        if self._pool is not None:
            return
        self._pool, self._stream = torch.cuda.MemPool(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        # The first backward pass starts torch's threads for it, which must not happen during a capture.
        with torch.inference_mode(False):
            torch.ones(1, device=self._device, requires_grad=True).sum().backward()  # type: ignore[no-untyped-call]

    @contextmanager
    def _capture_stream(self) -> Iterator[None]:
        """Run work on the stream and in the memory of captures; its backward pass must stay in this thread."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with (
            torch.cuda.stream(self._stream),
            torch.cuda.use_mem_pool(self._pool),
            torch.autograd.set_multithreading_enabled(False),
        ):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)


@contextmanager
def _synchronization_refused() -> Iterator[None]:
    """Refuse work that reads results back from the GPU, as a mixture of experts does.

    Such work cannot be captured, and a failed capture leaves torch's memory and random numbers unusable.

    Raises:
        RuntimeError: The work reads a result back.
    """
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def is_launch_bound(weight_bytes: float, device: torch.device) -> bool:
    """Return whether a model is so small that a GPU waits for its kernels to be launched.

    A large model keeps the GPU busy by itself, and needs the memory that graphs and their inputs would hold.
    """
    return weight_bytes <= _SMALL * torch.cuda.get_device_properties(device).total_memory


def rounded_up(number: int) -> int:
    """Return the next number with at most two leading bits set, so that a few shapes serve all batches.

    >>> [rounded_up(number) for number in (1, 3, 5, 7, 13, 17, 40, 100)]
    [1, 3, 6, 8, 16, 24, 48, 128]
    """
    power: int = 1 << (number - 1).bit_length()
    return 3 * power // 4 if number <= 3 * power // 4 else power
