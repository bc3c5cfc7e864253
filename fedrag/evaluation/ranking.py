"""Scores a ranking by the ranks of a question's labelled passages, with trec_eval's definitions.

Rankings are passage ids, best first, without repeats. Labels are binary. A question without labelled passages scores
0.0, so leave it out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence


def recall_at(ranked: Sequence[str], relevant: Collection[str], k: int) -> float:
    """Return 1.0 if any labelled passage is among the first k, else 0.0.

    Retrieval for question answering calls this recall@k, since one passage with the answer is enough. trec_eval calls
    it success_k.

    >>> recall_at(["p3", "p1", "p2"], {"p1", "p9"}, 2)
    1.0
    """
    return float(any(passage in relevant for passage in ranked[:k]))


def reciprocal_rank(ranked: Sequence[str], relevant: Collection[str]) -> float:
    """Return 1 / rank of the first labelled passage in the whole ranking, or 0.0 without one.

    >>> reciprocal_rank(["p3", "p1", "p2"], {"p1", "p2"})
    0.5
    """
    return next((1 / rank for rank, passage in enumerate(ranked, start=1) if passage in relevant), 0.0)


def ndcg_at(ranked: Sequence[str], relevant: Collection[str], k: int) -> float:
    """Return the discounted gain of the first k over that of the best possible ranking (nDCG@k).

    A labelled passage at a rank gains 1 / log2(rank + 1) (Järvelin and Kekäläinen 2002); the best ranking begins with
    min(k, number of labelled passages) of them.

    >>> ndcg_at(["p1", "p3", "p2"], {"p1", "p2"}, 10)
    0.9197207891481876
    """
    gain = sum(_discount(rank) for rank, passage in enumerate(ranked[:k], start=1) if passage in relevant)
    best = sum(_discount(rank) for rank in range(1, min(k, len(set(relevant))) + 1))
    return gain / best if best else 0.0


def _discount(rank: int) -> float:
    return 1 / math.log2(rank + 1)
