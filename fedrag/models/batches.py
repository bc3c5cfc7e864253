"""Batches of similar length, as pure functions of the examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from fedrag.types import Example


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group examples of similar length so that a padded batch has at most `batch_tokens` tokens.

    A pure function of the lengths: the same examples always meet in the same batches. The longest
    come first, so that a batch that does not fit into memory fails at once.

    >>> plan_batches([3, 9, 4, 8], 16)
    [[1], [3, 2], [0]]
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


@dataclass(frozen=True, slots=True)
class PrefixBatch:
    """Rows that are read together, and how many tokens at their start are the same."""

    rows: list[int]
    shared: int


def plan_prefix_batches(examples: Sequence[Example], batch_tokens: int) -> list[PrefixBatch]:
    """Group examples that begin with the same instruction and first passage, then by length.

    A site has far fewer passages than prompts: read once for all questions on it, a passage costs almost nothing. A
    pure function of the examples.
    """
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, example in enumerate(examples):
        groups[tuple(example.prompt[: sum(example.prefix_ends[:1])])].append(row)
    alone = [rows[0] for rows in groups.values() if len(rows) == 1]
    batches: list[PrefixBatch] = []
    for prefix, rows in groups.items():
        if len(rows) > 1:
            lengths = [examples[row].length - len(prefix) // 2 for row in rows]  # remembered tokens cost less
            batches += [
                PrefixBatch([rows[i] for i in plan], len(prefix)) for plan in plan_batches(lengths, batch_tokens)
            ]
    for plan in plan_batches([examples[row].length for row in alone], batch_tokens):
        batches.append(PrefixBatch([alone[i] for i in plan], 0))
    return batches
