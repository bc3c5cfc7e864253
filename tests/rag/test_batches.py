"""Batches of similar length."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fedrag.rag.batches import plan_batches

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
