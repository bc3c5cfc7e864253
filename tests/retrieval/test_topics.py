"""Texts on one topic get one number."""

from __future__ import annotations

import numpy as np

from fedrag.retrieval.topics import topics_of


def test_vectors_around_three_directions_are_three_topics_and_the_seed_decides_alone():
    chance = np.random.default_rng(0)
    topic = np.arange(30) % 3
    vectors = (np.eye(3)[topic] + 0.1 * chance.standard_normal((30, 3))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = topics_of(vectors, 3, seed=1)
    assert len({(own, other) for own, other in zip(topic.tolist(), found, strict=True)}) == 3
    assert sorted(set(found)) == [0, 1, 2]
    assert topics_of(vectors, 3, seed=1) == found
