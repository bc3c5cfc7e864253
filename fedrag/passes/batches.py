"""Plans batches of similar length, as pure functions of the examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from fedrag.types import Example

_MOST_PADDING = 1.25  # padded tokens for each real one; more groups in a batch mean larger products and more padding


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group examples of similar length so that a padded batch has at most `batch_tokens` tokens.

    The plan is a pure function of the lengths: the same examples always share the same batches. The longest come first,
    so that a batch that does not fit into memory fails at once.

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


def plan_prefix_batches(examples: Sequence[Example], batch_tokens: int) -> list[list[int]]:
    """Group examples so that those with the same instruction and first passage share a batch.

    A site has far fewer passages than prompts: a passage that is read once for all its questions costs almost nothing.
    A batch reads its first passages, padded, and then the rest of each example, padded: at most `batch_tokens` tokens
    in all. Examples that share nothing are grouped by length. The plan is a pure function of the examples.
    """
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, example in enumerate(examples):
        groups[example.first_prefix].append(row)
    batches: list[_OpenBatch] = []
    for prefix in sorted(groups, key=lambda prefix: (-len(prefix), groups[prefix][0])):
        if len(groups[prefix]) == 1:
            continue
        rests = [examples[row].length - len(prefix) for row in groups[prefix]]
        for plan in plan_batches(rests, max(batch_tokens - len(prefix), 1)):
            part = _OpenBatch([groups[prefix][i] for i in plan], [len(prefix)], [rests[i] for i in plan])
            joined = batches[-1] + part if batches else part
            if batches and prefix and joined.padded <= batch_tokens and joined.is_tight:
                batches[-1] = joined
            else:
                batches.append(part)
    alone = [rows[0] for rows in groups.values() if len(rows) == 1]
    plans = plan_batches([examples[row].length for row in alone], batch_tokens)
    return [*(batch.rows for batch in batches), *([alone[i] for i in plan] for plan in plans)]


@dataclass(frozen=True, slots=True)
class _OpenBatch:
    """A batch that can grow: its rows, the lengths of its first passages, and of the rest of each example."""

    rows: list[int]
    prefixes: list[int]
    rests: list[int]

    def __add__(self, other: _OpenBatch) -> _OpenBatch:
        return _OpenBatch(self.rows + other.rows, self.prefixes + other.prefixes, self.rests + other.rests)

    @property
    def padded(self) -> int:
        """Tokens that are read, padding included."""
        return max(self.prefixes) * len(self.prefixes) + max(self.rests) * len(self.rests)

    @property
    def is_tight(self) -> bool:
        """Whether larger passes gain more than the padding costs."""
        return self.padded <= _MOST_PADDING * (sum(self.prefixes) + sum(self.rests))


def padded(row: Sequence[int], width: int, value: int, *, left: bool = False) -> list[int]:
    """Return a row of numbers, padded with a value on the right or on the left up to a width.

    >>> padded([7, 8], 4, 0)
    [7, 8, 0, 0]
    """
    padding = [value] * (width - len(row))
    return [*padding, *row] if left else [*row, *padding]
