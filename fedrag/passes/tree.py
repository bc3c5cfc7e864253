"""Reads the prompts of a pass as a tree: what several of them begin with is read once, and nothing is padded.

To a causal model an instruction, or a passage, is the same whatever follows it. So a batch becomes one row that holds
each shared beginning once, with attention along the branches of the tree (`tree_attention`). Logits and gradients are
those of whole prompts: the gradients of shared tokens add up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import accumulate
from os.path import commonprefix
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from fedrag.models.attention import NAME as CPU_ATTENTION
from fedrag.models.attention import causal_mask, cpu_attention, is_plain_softmax
from fedrag.types import Example

NAME = f"tree_{CPU_ATTENTION}"

_LEAST = 8  # tokens; each branch costs some small operations in every layer
_FEW = 16  # examples; with more, exchanges gain little and take long to find


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive tokens of one or more texts.

    Attributes:
        tokens: Token ids.
        start: Position of the first token in its texts.
        before: Numbers of the segments that precede it in its texts.
    """

    tokens: list[int]
    start: int
    before: tuple[int, ...]


@dataclass(slots=True)
class PromptTree:
    """The prompts and answers of a batch, without the last token of each answer, which predicts nothing.

    Attributes:
        segments: The segments; each stands after those that precede it in its texts.
        places: For each answer token, example after example, the place in the row of all tokens that predicts it.
    """

    segments: list[Segment] = field(default_factory=list)
    places: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, batch: Sequence[Example]) -> PromptTree:
        """Return the tree of a batch."""
        tree = cls()
        leaves = dict(tree._grow(batch, list(range(len(batch))), 0, ()))
        ends = list(accumulate(tree.lengths))
        for row, example in enumerate(batch):
            end = ends[leaves[row]]
            tree.places += range(end - len(example.answer), end)
        return tree

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each segment."""
        return [len(segment.tokens) for segment in self.segments]

    @property
    def tokens(self) -> list[int]:
        """The row of all tokens."""
        return [token for segment in self.segments for token in segment.tokens]

    @property
    def positions(self) -> list[int]:
        """The position of each token in its texts."""
        return [segment.start + i for segment in self.segments for i in range(len(segment.tokens))]

    def mask(self) -> torch.Tensor:
        """Return which tokens attend to which (tokens, tokens)."""
        lengths = self.lengths
        mask = torch.zeros(sum(lengths), sum(lengths), dtype=torch.bool)
        columns = torch.split(torch.arange(sum(lengths)), lengths)
        for segment, own in zip(self.segments, columns, strict=True):
            for other in segment.before:
                mask[own[:, None], columns[other]] = True
            mask[own[:, None], own] = torch.ones(len(own), len(own), dtype=torch.bool).tril()
        return mask

    def _grow(
        self, batch: Sequence[Example], rows: list[int], start: int, before: tuple[int, ...]
    ) -> Iterator[tuple[int, int]]:
        """Add the tokens of some rows from a position on; yield each row with its last segment."""
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for row in rows:
            groups[tuple(batch[row].prompt[start : start + _LEAST])].append(row)
        for group in groups.values():
            # The last token of a prompt stays with the answer, whose first token it predicts.
            shared = commonprefix([batch[row].prompt[start:-1] for row in group]) if len(group) > 1 else []
            if len(shared) >= _LEAST:
                number = self._add(list(shared), start, before)
                yield from self._grow(batch, group, start + len(shared), (*before, number))
                continue
            for row in group:
                yield row, self._add([*batch[row].prompt[start:], *batch[row].answer[:-1]], start, before)

    def _add(self, tokens: list[int], start: int, before: tuple[int, ...]) -> int:
        self.segments.append(Segment(tokens, start, before))
        return len(self.segments) - 1


def plan_tree_passes(batch: Sequence[Example], at_a_time: int, most: int) -> list[list[int]]:
    """Distribute a batch over passes of about equal length, so that those that run at a time end together.

    Examples with a common beginning tend to share a pass. The plan is a pure function of the batch.

    >>> plan_tree_passes([Example([1, 2, 3]), Example([9, 9]), Example([4, 4])], 2, 1000)
    [[0], [1, 2]]

    Args:
        batch: Examples.
        at_a_time: Passes that run at a time; the number of passes is a multiple of it.
        most: Tokens that a pass may read, unless a single example has more.
    """
    fewest = -(-_size(batch, range(len(batch))) // most)
    for passes in range(at_a_time * -(-fewest // at_a_time), len(batch) + at_a_time, at_a_time):
        plan = _distribute(batch, passes)
        if max(_size(batch, rows) for rows in plan) <= most:
            return plan
    return [[row] for row in range(len(batch))]


def _distribute(batch: Sequence[Example], passes: int) -> list[list[int]]:
    """Give each example, the longest first, to the pass that is shortest with it; then shorten the longest pass."""
    plan: list[list[int]] = [[] for _ in range(passes)]
    sizes = [0] * passes
    for row in sorted(range(len(batch)), key=lambda row: (-batch[row].length, row)):
        own = [batch[row].length - _common_tokens(batch, row, rows) for rows in plan]
        place = min(range(passes), key=lambda place: sizes[place] + own[place])
        plan[place].append(row)
        sizes[place] += own[place]
    exchanged: list[list[int]] | None = plan
    while exchanged and len(batch) <= _FEW:
        plan = exchanged
        exchanged = _exchange(batch, plan)
    return [rows for rows in plan if rows]


def _exchange(batch: Sequence[Example], plan: list[list[int]]) -> list[list[int]] | None:
    """Move an example from the longest pass to the shortest, or exchange two; return None where neither helps."""
    *others, long = sorted(plan, key=lambda rows: _size(batch, rows))
    if not others:
        return None
    short, *between = others
    pairs = []
    for given in long:
        rest = [row for row in long if row != given]
        pairs.append((rest, [*short, given]))
        pairs += [([*rest, taken], [*(row for row in short if row != taken), given]) for taken in short]
    best = min(pairs, key=lambda pair: max(_size(batch, rows) for rows in pair))
    return [*between, *best] if max(_size(batch, rows) for rows in best) < _size(batch, long) else None


def _common_tokens(batch: Sequence[Example], row: int, others: Sequence[int]) -> int:
    """Return the length of the longest beginning that a prompt has in common with one of the others."""
    return max((len(commonprefix([batch[row].prompt, batch[other].prompt])) for other in others), default=0)


def _size(batch: Sequence[Example], rows: Sequence[int]) -> int:
    return sum(PromptTree.of([batch[row] for row in rows]).lengths)


_READING: ContextVar[PromptTree | None] = ContextVar("_READING", default=None)


def current_tree() -> PromptTree | None:
    """Return the tree that this thread's pass reads; None where it reads plain rows."""
    return _READING.get()


@contextmanager
def reading(tree: PromptTree | None) -> Iterator[None]:
    """Let the passes of this thread read a tree in one row."""
    before = _READING.set(tree)
    try:
        yield
    finally:
        _READING.reset(before)


def use_tree_attention(model: PreTrainedModel) -> None:
    """Let a model with `cpu_attention` read trees as well."""
    model.set_attn_implementation(NAME)


def tree_logits(model: PreTrainedModel, batch: Sequence[Example]) -> torch.Tensor:
    """Return the logits (tokens, vocabulary) that predict the answer tokens of a batch, example after example.

    Args:
        model: A causal model with `tree_attention`.
        batch: Examples, read as one tree.
    """
    tree = PromptTree.of(batch)
    with reading(tree):
        logits: torch.Tensor = model(
            input_ids=torch.tensor([tree.tokens]),
            position_ids=torch.tensor([tree.positions]),
            attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool),  # unused: the tree is the mask
            use_cache=False,
            logits_to_keep=torch.tensor(tree.places),
        ).logits
    return logits[0]


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Compute `cpu_attention`; in a tree each segment attends to itself and to those that precede it in its texts."""
    tree = current_tree()
    if tree is None:
        return cpu_attention(module, query, key, value, attention_mask, dropout, **options)
    if not is_plain_softmax(dropout, options):
        return cpu_attention(module, query, key, value, tree.mask()[None, None], dropout, **options)
    queries, keys, values = (torch.split(part, tree.lengths, dim=2) for part in (query, key, value))
    mixed = []
    for number, segment in enumerate(tree.segments):
        visible = (*segment.before, number)
        own_keys, own_values = (torch.cat([part[i] for i in visible], dim=2) for part in (keys, values))
        mask = causal_mask(len(segment.tokens), own_keys.shape[2]) if segment.before else None
        mixed.append(cpu_attention(module, queries[number], own_keys, own_values, mask, dropout, **options)[0])
    return torch.cat(mixed, dim=1), None


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
