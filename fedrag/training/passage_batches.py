"""Batches for RALT that group questions on the same passage: prompts that form a tree read it once a step.

Trainers group texts by length for the same reason, speed. Each epoch draws new groups.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence

from fedrag.seeding import derive_seed
from fedrag.types import Example


def passage_batches(examples: Sequence[Example], batch_size: int, epochs: int, seed: int) -> list[list[int]]:
    """Return the rows of every step; only the last batch of each epoch may be smaller.

    Examples whose prompts begin with the same passage come in groups of at most half a batch: a step learns from more
    than one passage, unless chance brings two groups of the same passage together. If no group fits into the rest of a
    batch, one is split.
    """
    batches: list[list[int]] = []
    for epoch in range(epochs):
        chance = random.Random(derive_seed(seed, "epoch", epoch))
        filled = list(_fill(_groups(examples, max(batch_size // 2, 1), chance), batch_size))
        last = [filled.pop()] if filled and len(filled[-1]) < batch_size else []
        chance.shuffle(filled)  # else the small groups, which fill gaps, would come first
        batches += filled + last
    return batches


def _groups(examples: Sequence[Example], most: int, chance: random.Random) -> list[list[int]]:
    """Return the rows in groups with the same first passage, of at most `most` rows, in random order."""
    by_passage: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row in chance.sample(range(len(examples)), len(examples)):
        by_passage[examples[row].first_prefix].append(row)
    groups: list[list[int]] = []
    for rows in by_passage.values():
        groups += [rows[i : i + most] for i in range(0, len(rows), most)]
    chance.shuffle(groups)
    return groups


def _fill(groups: Sequence[list[int]], batch_size: int) -> Iterator[list[int]]:
    """Yield batches of whole groups, in order as far as they fit; if none fits, the first is split."""
    waiting: dict[int, deque[tuple[int, list[int]]]] = defaultdict(
        deque
    )  # by size, for speed: a large site has many groups
    for number, group in enumerate(groups):
        waiting[len(group)].append((number, group))
    batch: list[int] = []
    while heads := [queue[0] for queue in waiting.values() if queue]:
        room = batch_size - len(batch)
        number, group = min([head for head in heads if len(head[1]) <= room] or heads)
        waiting[len(group)].popleft()
        batch += group[:room]
        if group[room:]:
            waiting[len(group) - room].appendleft((number, group[room:]))
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch
