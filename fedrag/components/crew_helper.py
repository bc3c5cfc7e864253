"""A process that helps another one to train: takes trainings from its standard input until that ends.

    python -m fedrag.components.crew_helper RANK SIZE PLACE THREADS PARENT

It writes no file, and removes the folder in which they met once the other process has ended. What goes wrong stands in
the log of the process that started it, and ends it.
"""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from functools import partial
from pathlib import Path

import torch

from fedrag.components.crew import READY, TAKEN, meet, shared_threads
from fedrag.service.children import die_with_parent
from fedrag.training.process_group import Group


def main(rank: int, size: int, place: Path, threads: int, parent: int) -> None:
    """Help until the other process ends."""
    leave = partial(shutil.rmtree, place.parent, ignore_errors=True)
    die_with_parent(parent, leave)
    group = Group(rank, size)
    torch.set_num_threads(threads)
    words = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print is no word to the other process
    words.write(READY)
    meet(group, place)
    while length := sys.stdin.buffer.read(8):
        job = pickle.loads(sys.stdin.buffer.read(int.from_bytes(length, "big")))
        words.write(TAKEN)
        with shared_threads(size):
            job(group)
    leave()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
