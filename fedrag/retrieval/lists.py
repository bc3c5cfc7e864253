"""Inverted lists of a large corpus, which a query reads in part."""

from __future__ import annotations

import math
from typing import Any

import faiss

from fedrag.types import Array

LISTS = 4.0  # lists per root of the number of chunks: choosing lists and reading them then take about the same time
PROBED_LISTS = 32
POINTS_PER_LIST = 64  # chunks per list that k-means reads; more take longer and give no better lists
FEWEST_POINTS_PER_LIST = 39  # below that, FAISS warns that the centres mean little


def lists_of(vectors: Array) -> Any:
    """Return inverted lists of the chunks, in float16, around the centres of seeded k-means.

    The same vectors always give the same lists.

    Args:
        vectors: Vectors of the chunks (chunks, dim).
    """
    dim = vectors.shape[1]
    count = max(1, min(round(LISTS * math.sqrt(len(vectors))), len(vectors) // FEWEST_POINTS_PER_LIST))
    lists = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dim), dim, count, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    lists.cp.seed = 0
    lists.cp.max_points_per_centroid = POINTS_PER_LIST
    lists.nprobe = min(PROBED_LISTS, count)
    lists.train(vectors)
    lists.add(vectors)
    return lists
