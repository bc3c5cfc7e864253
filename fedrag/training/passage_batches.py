"""Batches for RALT in which questions on the same passage meet: where prompts are a tree, it is read once a step.

As trainers group texts by length, for their speed. What is drawn is drawn anew each epoch.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence

from fedrag.seeding import derive_seed
from fedrag.types import Example


def passage_batches(examples: Sequence[Example], batch_size: int, epochs: int, seed: int) -> list[list[int]]:
    """Return the rows of every step; of each epoch's batches only the last may be smaller.

    Examples whose prompts begin with the same passage come in groups of at most half a batch: a step learns from more
    than one passage, unless chance brings two groups of one together. A group is torn apart where none fits in what a
    batch has left.
    """
    batches: list[list[int]] = []
    for epoch in range(epochs):
        chance = random.Random(derive_seed(seed, "epoch", epoch))
        filled = list(_fill(_groups(examples, max(batch_size // 2, 1), chance), batch_size))
        last = [filled.pop()] if filled and len(filled[-1]) < batch_size else []
        chance.shuffle(filled)  # small groups fill gaps: they come too early
        batches += filled + last
    return batches


def _groups(examples: Sequence[Example], most: int, chance: random.Random) -> list[list[int]]:
    """Return rows with the same first passage in groups of at most so many, drawn and in an order by chance."""
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row in chance.sample(range(len(examples)), len(examples)):
        alike[examples[row].first_prefix].append(row)
    groups = [rows[i : i + most] for rows in alike.values() for i in range(0, len(rows), most)]
    chance.shuffle(groups)
    return groups


def _fill(groups: Sequence[list[int]], batch_size: int) -> Iterator[list[int]]:
    """Give batches of whole groups, in their order where they fit; where none fits, the first is torn apart."""
    waiting: dict[int, deque[tuple[int, list[int]]]] = defaultdict(deque)  # by size: a large site has many groups
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
