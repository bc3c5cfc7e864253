from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fedrag.training.retriever_batches import distinct_batches
from fedrag.training.retriever_examples import PassageText, RetrieverExample


def example(passage: str | None, hard: bool = False) -> RetrieverExample:
    positive = PassageText(passage, f"text of {passage}") if passage else None
    return RetrieverExample("?", positive=positive, hard_negatives=(PassageText("x", "x"),) if hard else ())


@given(st.lists(st.sampled_from([None, "a", "b", "c", "d"]), min_size=1, max_size=40), st.integers(1, 9), st.integers())
def test_a_batch_holds_a_passage_once_and_every_question_comes_once_an_epoch(passages, batch_size, seed):
    examples = [example(passage, hard=True) for passage in passages]
    batches = distinct_batches(examples, batch_size, epochs=2, seed=abs(seed))
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        ids = [positive.passage_id for row in batch if (positive := examples[row].positive)]
        assert len(ids) == len(set(ids))
    assert Counter(row for batch in batches for row in batch) == dict.fromkeys(range(len(examples)), 2)


def test_a_question_alone_with_its_passage_is_left_out():
    examples = [example("a"), example("b"), example("a"), example("a")]
    batches = distinct_batches(examples, 4, epochs=1, seed=0)
    assert [len(batch) for batch in batches] == [2]
    assert 1 in batches[0]


def test_one_passage_alone_is_still_a_batch():
    assert distinct_batches([example("a")], 4, epochs=3, seed=0) == [[0]]


def test_epochs_and_seeds_differ():
    examples = [example(str(n)) for n in range(12)]
    first, second = distinct_batches(examples, 4, 1, seed=0), distinct_batches(examples, 4, 1, seed=1)
    assert first != second
    assert first == distinct_batches(examples, 4, 1, seed=0)
