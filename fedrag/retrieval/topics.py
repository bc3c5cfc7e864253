"""Groups texts by topic: seeded k-means of their vectors."""

from __future__ import annotations

import faiss
import numpy as np

from fedrag.types import Array

ROUNDS = 25
MOST_POINTS_PER_TOPIC = 10_000  # that k-means reads; the others go to the nearest centre too


def topics_of(vectors: Array, topics: int, seed: int) -> list[int]:
    """Return the topic of each vector, from 0; the same vectors and seed always give the same.

    Args:
        vectors: Vectors of the texts (texts, dim), of unit length: topics are compared by cosine.
        topics: How many, at most as many as vectors.
        seed: Seed of the first centres.
    """
    means = faiss.Kmeans(
        vectors.shape[1],
        topics,
        niter=ROUNDS,
        seed=seed % 2**31,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=MOST_POINTS_PER_TOPIC,
    )
    means.train(vectors)
    _, nearest = means.index.search(vectors, 1)
    topic: list[int] = np.asarray(nearest)[:, 0].tolist()
    return topic
