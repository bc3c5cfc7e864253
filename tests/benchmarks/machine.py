"""What this machine can do at best: matrix products, large and of the model's own shapes, and copies in memory.

Every other benchmark that speaks of a share of a ceiling measures the ceiling it needs with these functions, in its
own process and in the same minutes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from bench import Row, finish, main
from torch import nn

from fedrag.weights.compute import best_device

SQUARE = 4096
TIMES = 5

Shape = tuple[int, int, int]
"""A product of (m, k) and (k, n): 2 m k n floating-point operations."""


def product_rate(
    shapes: Sequence[Shape],
    dtype: torch.dtype,
    seconds: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the operations a second of these products one after the other, in the best of some passes.

    Args:
        shapes: Products of one pass.
        dtype: Number format.
        seconds: Least time to go on for.
        clock: Tells the seconds.
    """
    chance = partial(torch.randn, dtype=dtype, device=best_device())
    pairs = [(chance(m, k), chance(n, k)) for m, k, n in shapes]
    work = sum(2 * m * k * n for m, k, n in shapes)
    taken = []
    with torch.inference_mode():
        while len(taken) < TIMES or sum(taken) < seconds:
            finish()
            start = clock()
            for left, right in pairs:
                nn.functional.linear(left, right)
            finish()
            taken.append(clock() - start)
    return work / min(taken)


def linear_shapes(model: nn.Module, tokens: int) -> list[Shape]:
    """Return the products of one forward pass over some tokens: all frozen linear layers but the output head."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    return [
        (tokens, layer.in_features, layer.out_features)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer is not head and "lora_" not in name
    ]


def copy_rate(megabytes: int = 256) -> float:
    """Return the bytes a second that one thread copies, or the GPU."""
    source = torch.randint(0, 255, (megabytes * 1_000_000,), dtype=torch.uint8, device=best_device())
    target = torch.empty_like(source)
    taken = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(TIMES):
        finish()
        start = time.perf_counter()
        target.copy_(source)
        finish()
        taken.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return source.numel() / statistics.median(taken)


def measure() -> list[Row]:
    """Measure the ceilings."""
    from models import load_generator

    shapes = linear_shapes(load_generator().model, 1536)
    rows = []
    for dtype, name in ((torch.bfloat16, "bfloat16"), (torch.float32, "float32")):
        square = product_rate([(SQUARE, SQUARE, SQUARE)], dtype)
        own = product_rate(shapes, dtype)
        rows.append(Row(f"{name} product of {SQUARE} x {SQUARE} squares", square / 1e9, "GFLOP/s"))
        rows.append(
            Row(
                f"{name} products of the generator's linear layers, 1,536 tokens",
                own / 1e9,
                "GFLOP/s",
                figures={"share_of_square_percent": 100 * own / square},
            )
        )
    copied = "copy in the GPU's memory" if best_device() == "cuda" else "copy, one thread"
    rows.append(Row(copied, copy_rate() / 1e9, "GB/s"))
    return rows


if __name__ == "__main__":
    main(measure)
