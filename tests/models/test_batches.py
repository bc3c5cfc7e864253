"""Batches of similar length."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fedrag.models.batches import plan_batches, plan_prefix_batches
from fedrag.types import Example

LENGTHS = st.lists(st.integers(1, 300), max_size=60)
LIMITS = st.integers(1, 1000)


@given(LENGTHS, LIMITS)
def test_every_row_is_in_exactly_one_batch(lengths, limit):
    rows = [row for batch in plan_batches(lengths, limit) for row in batch]
    assert sorted(rows) == list(range(len(lengths)))


@given(LENGTHS, LIMITS)
def test_a_padded_batch_has_at_most_the_limit_unless_it_is_one_example(lengths, limit):
    for batch in plan_batches(lengths, limit):
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= limit


@given(LENGTHS, LIMITS)
def test_no_two_neighbours_could_have_been_one_batch(lengths, limit):
    batches = plan_batches(lengths, limit)
    for batch, following in zip(batches, batches[1:], strict=False):
        assert lengths[batch[0]] * (len(batch) + 1) > limit
        assert lengths[batch[-1]] >= lengths[following[0]]


@given(LENGTHS, LIMITS)
def test_the_plan_is_a_pure_function(lengths, limit):
    before = list(lengths)
    assert plan_batches(lengths, limit) == plan_batches(tuple(lengths), limit)
    assert lengths == before


def test_only_what_begins_alike_is_read_as_one():
    examples = [
        Example([1, *[passage] * passage, *[9] * own], [3], (1 + passage,)) for passage in (5, 6) for own in range(1, 5)
    ]
    examples += [Example([1, 7, 9, 9], [], (2,)), Example([4, 4])]
    for limit in (1, 20, 60, 10_000):
        plan = plan_prefix_batches(examples, limit)
        assert sorted(row for batch in plan for row in batch.rows) == list(range(len(examples)))
        for batch in plan:
            begins = {tuple(examples[row].prompt[: batch.shared]) for row in batch.rows}
            assert len(begins) == 1
            assert all(batch.shared < len(examples[row].prompt) for row in batch.rows)
        assert plan == plan_prefix_batches(tuple(examples), limit)
    assert sorted(batch.shared for batch in plan) == [0, 6, 7]


def test_prompts_with_the_same_first_passage_share_it_whatever_comes_second():
    examples = [Example([1, 2, 3, second, 9, 9], [], (3, 4)) for second in (5, 6)]
    [batch] = plan_prefix_batches(examples, 100)
    assert (sorted(batch.rows), batch.shared) == ([0, 1], 3)
