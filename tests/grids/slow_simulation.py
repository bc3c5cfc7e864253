"""A simulation on a Ray cluster of two nodes, whose clients work for some seconds and note on which node.

python slow_simulation.py ADDRESS SITES OUT NOTES
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path

import ray
import torch
from ray_nodes import START_S
from tiny_federation import tiny_config

from fedrag.simulation.simulate import simulate
from fedrag.training.losses import Losses, answer_loss

WORK_S = 1.0


def slow_loss(logits: torch.Tensor, labels: torch.Tensor, notes: Path) -> torch.Tensor:
    context = ray.get_runtime_context()
    with (notes / context.get_node_id()).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(WORK_S)
    return answer_loss(logits, labels)


def await_two_nodes(address: str) -> None:
    end = time.monotonic() + START_S
    while True:
        ray.init(address=address, log_to_driver=False)
        alive = sum(node["Alive"] for node in ray.nodes())
        ray.shutdown()
        if alive == 2:
            return
        assert time.monotonic() < end, "the second node did not join"
        time.sleep(0.2)


def main(address: str, sites: Path, out: Path, notes: Path) -> None:
    await_two_nodes(address)
    ray.init(address=address, log_to_driver=False)
    (notes.parent / "own-node").write_text(ray.get_runtime_context().get_node_id())
    settings = {"federation": {"rounds": 2, "schedule": "generator"}, "simulation": {"grid": "ray", "threads": 1}}
    losses = Losses(answer=partial(slow_loss, notes=notes))
    simulate(tiny_config(sites, **settings), out=out, losses=losses, ray_address=address)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
