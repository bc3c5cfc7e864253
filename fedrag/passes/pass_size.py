"""How many tokens a generator reads at a time, where the scenario leaves it open."""

from __future__ import annotations

import torch

from fedrag.models.generator import Generator
from fedrag.passes.checkpointing import Footprint

_TIMES_ON_A_GPU = 8  # launching the kernels of a pass takes the same for few tokens and for many
_SHARE = 0.25  # of the GPU's memory; not of what is free: the same run makes the same passes


def tokens_at_a_time(generator: Generator, asked: int, on_a_cpu: int) -> int:
    """Return the tokens that passes running at a time may read together.

    Args:
        generator: Who reads.
        asked: What the scenario says; 0: nothing.
        on_a_cpu: As many as a CPU does best with; a GPU takes up to eight times as many.
    """
    device = generator.model.device
    if asked or device.type != "cuda":
        return asked or on_a_cpu
    memory = torch.cuda.get_device_properties(device).total_memory
    fitting = int(_SHARE * memory / Footprint.of(generator).token_bytes)
    return max(on_a_cpu, min(fitting, _TIMES_ON_A_GPU * on_a_cpu))
