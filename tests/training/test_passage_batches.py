from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrag.config.rag_settings import RagConfig
from fedrag.config.training_settings import GeneratorConfig
from fedrag.passes.tree import PromptTree
from fedrag.rag.window import shown_passage
from fedrag.training.passage_batches import passage_batches
from fedrag.training.ralt import answer_examples, epoch_batches, example_batches
from fedrag.types import Example, Passage, Question


def example(passage: int) -> Example:
    return Example([passage, 0], prefix_ends=(1,))


@given(st.lists(st.integers(0, 6), max_size=60), st.integers(1, 9), st.integers(0))
def test_every_example_comes_once_an_epoch_in_full_batches_but_the_last(passages, batch_size, seed):
    examples = [example(passage) for passage in passages]
    batches = passage_batches(examples, batch_size, epochs=2, seed=seed)
    per_epoch = -(-len(examples) // batch_size)
    assert len(batches) == 2 * per_epoch
    for start in (0, per_epoch):
        epoch = batches[start : start + per_epoch]
        assert Counter(row for batch in epoch for row in batch) == dict.fromkeys(range(len(examples)), 1)
        assert all(len(batch) == batch_size for batch in epoch[:-1])
    assert batches == passage_batches(examples, batch_size, epochs=2, seed=seed)


@pytest.mark.parametrize("seed", range(20))
def test_groups_that_fit_stay_whole(seed):
    sizes = [4, 4, 2, 2, 2, 2]
    examples = [example(passage) for passage, size in enumerate(sizes) for _ in range(size)]
    batches = passage_batches(examples, 8, epochs=3, seed=seed)
    met = [{examples[row].first_prefix for row in batch} for batch in batches]
    assert sum(len(passages) for passages in met) == 3 * len(sizes)


def test_a_group_is_torn_apart_where_a_batch_has_room_for_no_whole_one():
    examples = [example(passage) for passage in range(3) for _ in range(3)]
    batches = passage_batches(examples, 8, epochs=1, seed=0)
    assert [sorted(Counter(examples[row].first_prefix for row in batch).values()) for batch in batches] == [
        [2, 3, 3],
        [1],
    ]


def test_a_passage_with_many_questions_comes_in_groups_of_half_a_batch():
    examples = [example(passage) for passage in (0, 1) for _ in range(400)]
    batches = passage_batches(examples, 8, epochs=1, seed=0)
    firsts = [sum(examples[row].first_prefix == (0,) for row in batch) for batch in batches]
    assert set(firsts) == {0, 4, 8}
    assert firsts.count(4) > 30


def test_small_groups_do_not_come_first():
    """They fill what a batch has left: without a shuffle of the batches the later half would hold 6 of 50."""
    examples = [example(passage) for passage in range(100) for _ in range(3)]
    examples += [example(passage) for passage in range(100, 150)]
    batches = passage_batches(examples, 8, epochs=1, seed=0)
    alone = [sum(examples[row].first_prefix >= (100,) for row in batch) for batch in batches]
    assert sum(alone[len(alone) // 2 :]) > 12


def test_epochs_and_seeds_differ():
    examples = [example(row // 2) for row in range(12)]
    first, second = passage_batches(examples, 4, 2, seed=0), passage_batches(examples, 4, 2, seed=1)
    assert first != second
    assert first[:3] != first[3:]


@pytest.mark.parametrize(
    ("grouped", "adapter_from", "meet"), [(True, "start", True), (False, "start", False), (True, "question", False)]
)
def test_questions_meet_where_the_setting_says_so_and_passages_are_not_remembered(grouped, adapter_from, meet):
    examples = [example(row % 3) for row in range(12)]
    rows = passage_batches(examples, 4, 2, 5) if meet else epoch_batches(12, 4, 2, 5)
    settings = GeneratorConfig(batch_size=4, epochs=2, group_by_passage=grouped, adapter_from=adapter_from)
    assert example_batches(examples, settings, seed=5) == rows


def test_less_is_read_where_questions_on_a_passage_meet(load_generator):
    passages = {name: Passage(name, f"The loaf of baker {name} weighs one kilogram and rests.") for name in "abcdefgh"}
    questions = [Question(f"{name}{i}", f"Who is {i}?", ("Ada",)) for name in passages for i in range(3)]
    found = [(question.id[0], "a" if question.id[0] != "a" else "b") for question in questions]
    shown = [[shown_passage(passages[name]) for name in names] for names in found]
    examples = answer_examples(load_generator(), questions, shown, RagConfig())
    read = {}
    for grouped in (False, True):
        settings = GeneratorConfig(batch_size=6, group_by_passage=grouped)
        batches = example_batches(examples, settings, seed=0)
        read[grouped] = sum(sum(PromptTree.of([examples[row] for row in rows]).lengths) for rows in batches)
    assert read[True] < 0.7 * read[False]
