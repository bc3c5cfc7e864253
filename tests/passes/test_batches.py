"""Plans of batches: every row once, similar lengths together, within the limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fedrag.passes.batches import plan_batches, plan_prefix_batches
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


def padded_tokens(batch: list[Example]) -> int:
    """Count the padded tokens of a batch: its distinct first passages and the rests; whole rows if none is shared."""
    prefixes = {example.first_prefix for example in batch}
    if len(prefixes) == len(batch):
        return len(batch) * max(example.length for example in batch)
    rests = [example.length - len(example.first_prefix) for example in batch]
    return len(prefixes) * max(map(len, prefixes)) + len(rests) * max(rests)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 40)), max_size=40), st.integers(1, 200))
def test_prompts_on_one_passage_meet_and_a_batch_keeps_to_the_limit(drawn, limit):
    examples = [Example([1, *[passage] * 3 * passage, *[9] * own], [3], (1 + 3 * passage,)) for passage, own in drawn]
    plan = plan_prefix_batches(examples, limit)
    assert sorted(row for rows in plan for row in rows) == list(range(len(examples)))
    assert plan == plan_prefix_batches(tuple(examples), limit)
    batches = [[examples[row] for row in rows] for rows in plan]
    assert all(len(batch) == 1 or padded_tokens(batch) <= limit for batch in batches)
    for prefix in {example.first_prefix for example in examples}:
        all_on_it = [example for example in examples if example.first_prefix == prefix]
        if padded_tokens(all_on_it) <= limit:
            assert sum(prefix in {example.first_prefix for example in batch} for batch in batches) == 1


def test_prompts_with_the_same_first_passage_share_it_whatever_comes_second():
    examples = [Example([1, 2, 3, second, 9, 9], [], (3, 4)) for second in (5, 6)]
    assert examples[0].first_prefix == examples[1].first_prefix == (1, 2, 3)
    assert plan_prefix_batches(examples, 9) == [[0, 1]]
    assert plan_prefix_batches(examples, 8) == [[0], [1]]


def test_without_prefixes_batches_are_those_of_similar_length():
    examples = [Example([1] * length) for length in (3, 9, 4, 8)]
    assert plan_prefix_batches(examples, 16) == plan_batches([3, 9, 4, 8], 16)
