"""Partitions the data of some sites anew among a chosen number of clients.

Three ways make clients differ as sites do: whole sources (the natural way), a Dirichlet mix of sources for each client
(Hsu, Qi and Brown 2019, https://arxiv.org/abs/1909.06335), or a topic for each client. With `iid`, for comparison, they
do not differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from fedrag.data.pooling import merge_sites, prefix_ids
from fedrag.errors import ConfigError, DataError
from fedrag.seeding import derive_seed
from fedrag.types import SPLITS, Question, Site, Split

By = Literal["iid", "dirichlet", "source", "topic"]
FindTopics = Callable[[Sequence[str]], Sequence[int]]
"""Returns the topic of each text, numbers from 0 to the number of clients."""
Mixes = npt.NDArray[np.float64]
_Item = TypeVar("_Item")


def partition(
    sites: Sequence[Site],
    clients: int,
    by: By,
    alpha: float = 1.0,
    seed: int = 0,
    find_topics: FindTopics | None = None,
) -> list[Site]:
    """Deal questions and passages to clients named client-01, client-02, ...

    A question keeps its split. A passage goes to every client that gets a question about it; a passage that no
    question names is dealt like a question.

    Args:
        sites: The sources.
        clients: Number of clients.
        by: "iid": at random; "dirichlet": a client's mix of sources is drawn from Dir(alpha * p), p the
            sources' shares; "source": whole sources, balanced by number of questions; "topic": a topic each; a
            question has that of its first right passage or, without one, its own.
        alpha: Concentration of the Dirichlet distribution; with a small one, clients differ much.
        seed: Seed of the mixes and of the deal.
        find_topics: Finds the topics of texts, where by = "topic".

    Raises:
        ConfigError: The number of clients or alpha is out of range.
        DataError: There is not a question and a passage for every client.
    """
    if clients < 1:
        raise ConfigError(f"clients = {clients}: at least one client is needed")
    if not (alpha > 0 and math.isfinite(alpha)):
        raise ConfigError(f"alpha = {alpha}: must be a positive number")
    sites = _with_distinct_ids(sites)
    if by == "source":
        dealt = _by_source(sites, clients)
    elif by == "topic":
        assert find_topics is not None
        dealt = _by_topic(sites, clients, find_topics)
    else:
        dealt = _by_mix(sites, clients, alpha if by == "dirichlet" else None, seed)
    for site in dealt:
        if not site.passages or not site.questions:
            what = "question" if site.passages else "passage"
            raise DataError(f"{clients} clients are too many: {site.name} would get no {what}")
    return dealt


def balanced_groups(counts: Sequence[int], groups: int) -> list[list[int]]:
    """Group items so that their counts sum to about the same: largest item first, into the emptiest group.

    >>> balanced_groups([1, 5, 3, 3], 2)
    [[0, 1], [2, 3]]
    """
    members: list[list[int]] = [[] for _ in range(groups)]
    totals = [0] * groups
    for item in sorted(range(len(counts)), key=lambda i: -counts[i]):
        emptiest = min(range(groups), key=lambda g: (totals[g], len(members[g])))
        members[emptiest].append(item)
        totals[emptiest] += counts[item]
    return [sorted(group) for group in members]


def numbered_names(stem: str, count: int) -> list[str]:
    """Return numbered names that sort in order.

    >>> numbered_names("group", 10)[:2]
    ['group-01', 'group-02']
    """
    return [f"{stem}-{number:0{len(str(count))}}" for number in range(1, count + 1)]


def _by_source(sites: Sequence[Site], clients: int) -> list[Site]:
    """Merge whole sources."""
    if clients > len(sites):
        raise DataError(f"{clients} clients are too many: there are only {len(sites)} sources to deal whole")
    counts = [len(site.questions) for site in sites]
    return [
        merge_sites(name, [sites[i] for i in group])
        for name, group in zip(_client_names(clients), balanced_groups(counts, clients), strict=True)
    ]


def _by_mix(sites: Sequence[Site], clients: int, alpha: float | None, seed: int) -> list[Site]:
    """Deal single questions by each client's mix of sources; without alpha, all sources count as one."""
    rng = np.random.default_rng(derive_seed(seed, "partition"))
    pile_of = [0] * len(sites) if alpha is None else list(range(len(sites)))
    mixes = _draw_mixes(sites, clients, alpha, rng)
    questions: dict[Split, list[list[Question]]] = {}
    for split in SPLITS:
        from_pile = [(pile_of[i], question) for i, site in enumerate(sites) for question in site.split(split)]
        questions[split] = _deal(from_pile, mixes, rng)
    asked = [(pile_of[i], question) for i, site in enumerate(sites) for question in site.unanswered]
    unanswered = _deal(asked, mixes, rng) if asked else [[] for _ in range(clients)]
    named = set().union(*map(_labels, sites))
    passages = [(pile_of[i], passage) for i, site in enumerate(sites) for passage in site.passages]
    unnamed = _deal([(pile, passage) for pile, passage in passages if passage.id not in named], mixes, rng)
    whole, dealt = merge_sites("", sites), []
    for client, name in enumerate(_client_names(clients)):
        train, validation, test = (tuple(questions[split][client]) for split in SPLITS)
        own = tuple(unanswered[client])
        site = replace(whole, name=name, train=train, validation=validation, test=test, unanswered=own)
        held = _labels(site) | {passage.id for passage in unnamed[client]}
        dealt.append(replace(site, passages=tuple(passage for passage in whole.passages if passage.id in held)))
    return dealt


def _by_topic(sites: Sequence[Site], clients: int, find_topics: FindTopics) -> list[Site]:
    """Give each client the passages and the questions of one topic, and further passages that its questions name."""
    whole = merge_sites("", sites)
    asked = whole.questions + whole.unanswered
    bare = [question for question in asked if not question.passage_ids]
    texts = [*(passage.full_text for passage in whole.passages), *(question.question for question in bare)]
    if len(texts) < clients:
        raise DataError(f"{clients} clients are too many: there are only {len(texts)} passages to find topics in")
    found = find_topics(texts)
    topic = {passage.id: number for passage, number in zip(whole.passages, found, strict=False)}
    own = {question.id: number for question, number in zip(bare, found[len(whole.passages) :], strict=True)}

    def belongs(question: Question, client: int) -> bool:
        return (topic[question.passage_ids[0]] if question.passage_ids else own[question.id]) == client

    dealt = []
    for client, name in enumerate(_client_names(clients)):
        train, validation, test, unanswered = (
            tuple(question for question in questions if belongs(question, client))
            for questions in (*(whole.split(split) for split in SPLITS), whole.unanswered)
        )
        site = replace(whole, name=name, train=train, validation=validation, test=test, unanswered=unanswered)
        held = _labels(site) | {identity for identity, number in topic.items() if number == client}
        dealt.append(replace(site, passages=tuple(passage for passage in whole.passages if passage.id in held)))
    return dealt


def _labels(site: Site) -> set[str]:
    """Return the ids of the passages that a site's questions name, as right or as hard negatives."""
    questions = site.questions + site.unanswered
    return {label for question in questions for label in question.passage_ids + question.hard_negative_ids}


def _draw_mixes(sites: Sequence[Site], clients: int, alpha: float | None, rng: np.random.Generator) -> Mixes:
    """Return each client's shares of the sources (clients, sources); without alpha, all sources count as one."""
    if alpha is None:
        return np.ones((clients, 1))
    counts = np.array([len(site.questions) for site in sites], float)
    asked = counts > 0
    mixes = np.zeros((clients, len(sites)))
    mixes[:, asked] = rng.dirichlet(alpha * counts[asked] / counts.sum(), size=clients)
    return mixes


def _deal(items: Sequence[tuple[int, _Item]], mixes: Mixes, rng: np.random.Generator) -> list[list[_Item]]:
    """Deal items in turn: a client draws one of the piles that are left by its mix, then an item from it.

    Args:
        items: The number of an item's pile, and the item.
        mixes: Weights (clients, piles).
        rng: Generator of the draws.

    Returns:
        Each client's items, in their original order; their numbers differ by at most one.
    """
    clients, n_piles = mixes.shape
    piles: list[list[int]] = [[] for _ in range(n_piles)]
    for index in rng.permutation(len(items)):
        piles[items[index][0]].append(int(index))
    drawn: list[list[int]] = [[] for _ in range(clients)]
    for turn in range(len(items)):
        left = np.array([len(pile) for pile in piles], float)
        weights = mixes[turn % clients] * (left > 0)
        if not weights.sum() > 0:  # the piles in the client's mix are empty
            weights = left
        pile = rng.choice(n_piles, p=weights / weights.sum())
        drawn[turn % clients].append(piles[pile].pop())
    return [[items[index][1] for index in sorted(indices)] for indices in drawn]


def _with_distinct_ids(sites: Sequence[Site]) -> list[Site]:
    """Prefix all ids with their site's name if two sites share an id."""
    passage_ids = [{passage.id for passage in site.passages} for site in sites]
    question_ids = [{question.id for question in site.questions + site.unanswered} for site in sites]
    if all(sum(map(len, ids)) == len(set().union(*ids)) for ids in (passage_ids, question_ids)):
        return list(sites)
    return [prefix_ids(site) for site in sites]


def _client_names(clients: int) -> list[str]:
    return [f"client-{number:0{max(2, len(str(clients)))}}" for number in range(1, clients + 1)]
