"""Data dealt anew to clients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from fedrag.data.partition import balanced_groups, partition
from fedrag.errors import ConfigError, DataError
from fedrag.types import SPLITS, Passage, Question, Site


def source(name: str, n_train: int, n_test: int = 0, spare: int = 0) -> Site:
    """Make a site in which every two questions share a passage, and `spare` passages have none."""

    def question(split: str, i: int) -> Question:
        return Question(f"{name}-{split}{i}", f"{name} {split} {i}?", ("yes",), (f"{name}-p{i // 2}",))

    used = (max(n_train, n_test) + 1) // 2
    return Site(
        name,
        tuple(Passage(f"{name}-p{i}", f"{name} text {i}") for i in range(used + spare)),
        train=tuple(question("train", i) for i in range(n_train)),
        test=tuple(question("test", i) for i in range(n_test)),
    )


SOURCES = [source("a", 60, 20, spare=6), source("b", 30, 10), source("c", 30, 10, spare=3)]


def questions_of(site: Site) -> list[Question]:
    return [question for split in SPLITS for question in site.split(split)]


def source_counts(site: Site) -> Counter[str]:
    return Counter(question.id[0] for question in site.train)


@pytest.mark.parametrize("by", ["iid", "dirichlet", "source"])
def test_every_question_goes_to_one_client_in_its_split_with_its_passages(by: str) -> None:
    clients = partition(SOURCES, 3, by, alpha=0.3)  # type: ignore[arg-type]
    assert [client.name for client in clients] == ["client-01", "client-02", "client-03"]
    for split in SPLITS:
        dealt = sorted(question.id for client in clients for question in client.split(split))
        assert dealt == sorted(question.id for site in SOURCES for question in site.split(split))
    for client in clients:
        ids = [passage.id for passage in client.passages]
        assert len(ids) == len(set(ids))
        assert {label for question in questions_of(client) for label in question.passage_ids} <= set(ids)
    assert {p for client in clients for p in client.passages} == {p for site in SOURCES for p in site.passages}


def test_by_topic_a_question_goes_where_its_first_right_passage_is_and_takes_the_others_along() -> None:
    texts = {"a": "bread", "b": "rye bread", "c": "a tram", "d": "a late tram"}
    passages = tuple(Passage(name, text) for name, text in texts.items())
    train = (Question("q1", "Which bread?", (), ("a",)), Question("q2", "Which tram?", (), ("c", "b")))
    unanswered = (Question("q3", "When does the tram leave?", (), ()),)
    whole = Site("all", passages, train, unanswered=unanswered)
    seen: list[str] = []

    def find_topics(texts: Sequence[str]) -> list[int]:
        seen.extend(texts)
        return [int("tram" in text) for text in texts]

    bakery, depot = partition([whole], 2, "topic", find_topics=find_topics)
    assert seen == [*texts.values(), "When does the tram leave?"]
    assert ([p.id for p in bakery.passages], [q.id for q in bakery.train]) == (["a", "b"], ["q1"])
    assert ([p.id for p in depot.passages], [q.id for q in depot.train]) == (["b", "c", "d"], ["q2"])
    assert [q.id for q in depot.unanswered] == ["q3"]
    with pytest.raises(DataError, match="3 clients are too many: client-03 would get no passage"):
        partition([whole], 3, "topic", find_topics=find_topics)


def test_a_passage_no_question_names_goes_to_one_client() -> None:
    spare = {"a-p30", "a-p31", "a-p32", "a-p33", "a-p34", "a-p35", "c-p15", "c-p16", "c-p17"}
    dealt = [p.id for client in partition(SOURCES, 3, "iid") for p in client.passages if p.id in spare]
    assert sorted(dealt) == sorted(spare)


def test_iid_clients_are_of_one_size_and_one_mix() -> None:
    clients = partition(SOURCES, 4, "iid", seed=1)
    assert [len(client.train) for client in clients] == [30] * 4
    # Hypergeometric: 15 of 30 expected from source a, standard deviation 2.4.
    assert all(abs(source_counts(client)["a"] - 15) <= 8 for client in clients)


def test_dirichlet_clients_are_of_one_size_and_differ_more_the_smaller_alpha() -> None:
    def skew(alpha: float) -> float:
        shares = []
        for seed in range(8):
            for client in partition(SOURCES, 4, "dirichlet", alpha=alpha, seed=seed):
                assert len(client.train) == 30
                shares.append(max(source_counts(client).values()) / 30)
        return float(np.mean(shares))

    even, mixed, skewed = skew(1e6), skew(1.0), skew(1e-3)
    assert even < mixed < skewed
    assert even < 0.62
    assert skewed > 0.7  # not 1: clients of one size cannot all keep to one source


def test_source_keeps_sites_whole_and_balances_their_questions() -> None:
    first, second = partition(SOURCES, 2, "source")
    assert source_counts(first) == {"a": 60}
    assert source_counts(second) == {"b": 30, "c": 30}


def test_the_seed_decides_who_gets_what() -> None:
    assert partition(SOURCES, 3, "dirichlet", seed=1) == partition(SOURCES, 3, "dirichlet", seed=1)
    assert partition(SOURCES, 3, "dirichlet", seed=1) != partition(SOURCES, 3, "dirichlet", seed=2)


def test_ids_are_prefixed_where_sources_share_one() -> None:
    other = Site("z", SOURCES[1].passages, test=SOURCES[1].test)
    (client,) = partition([SOURCES[1], other], 1, "iid")
    assert len({passage.id for passage in client.passages}) == 30
    assert {question.id.split("/")[0] for question in client.test} == {"b", "z"}
    assert client.test[0].passage_ids == ("b/b-p0",)


def test_the_sizes_of_clients_differ_by_one_at_most_in_every_split() -> None:
    sizes = [len(client.test) for client in partition(SOURCES, 7, "dirichlet", alpha=0.05)]
    assert sum(sizes) == 40
    assert max(sizes) - min(sizes) == 1


@pytest.mark.parametrize(
    ("clients", "by", "message"),
    [
        (5, "iid", "5 clients are too many: client-05 would get no question"),
        (2, "source", "2 clients are too many: there are only 1 sources"),
    ],
)
def test_a_client_that_would_get_nothing_is_an_error(clients: int, by: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        partition([source("a", 4, spare=9)], clients, by)  # type: ignore[arg-type]


def test_a_client_without_a_passage_is_an_error() -> None:
    site = Site("a", (Passage("p", "t"),), train=tuple(Question(f"q{i}", "?", ("x",)) for i in range(3)))
    with pytest.raises(DataError, match="client-02 would get no passage"):
        partition([site], 2, "iid")


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="clients = 0"):
        partition(SOURCES, 0, "iid")
    for alpha in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="alpha = "):
            partition(SOURCES, 2, "dirichlet", alpha=alpha)


def test_groups_of_counts_are_about_equal() -> None:
    counts = [30, 30, 29, 25, 25, 21, 10, 10]
    groups = balanced_groups(counts, 3)
    assert sorted(item for group in groups for item in group) == list(range(8))
    assert sorted(sum(counts[i] for i in group) for group in groups) == [55, 61, 64]


def test_a_hard_negative_goes_where_its_question_goes_and_under_its_new_name() -> None:
    sites = [
        Site(
            name,
            tuple(Passage(f"p{i}", f"{name} {i}") for i in range(12)),
            tuple(Question(f"q{i}", f"{name} {i}?", (), (f"p{i}",), (f"p{i + 6}",)) for i in range(6)),
        )
        for name in ("a", "b")
    ]
    for by in ("iid", "dirichlet", "source"):
        for client in partition(sites, 2, by):  # type: ignore[arg-type]
            ids = {passage.id for passage in client.passages}
            for question in client.train:
                assert set(question.hard_negative_ids) <= ids
                site, number = question.id.split("/q")
                assert question.hard_negative_ids == (f"{site}/p{int(number) + 6}",)
