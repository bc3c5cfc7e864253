"""Scores a ranking by the ranks of a question's labelled passages, with trec_eval's definitions.

Ranks are those of the labelled passages in the whole ranking, from 1, best first; the others need not be ranked. Labels
are binary. A question without labelled passages scores 0.0, so leave it out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def recall_at(ranks: Sequence[int], k: int) -> float:
    """Return 1.0 if any labelled passage is among the first k, else 0.0.

    Retrieval for question answering calls this recall@k, since one passage with the answer is enough. trec_eval calls
    it success_k.

    >>> recall_at([2, 9], 2)
    1.0
    """
    return float(any(rank <= k for rank in ranks))


def reciprocal_rank(ranks: Sequence[int]) -> float:
    """Return 1 / rank of the first labelled passage, or 0.0 without one.

    >>> reciprocal_rank([2, 3])
    0.5
    """
    return 1 / min(ranks) if ranks else 0.0


def ndcg_at(ranks: Sequence[int], labelled: int, k: int) -> float:
    """Return the discounted gain of the first k over that of the best possible ranking (nDCG@k).

    A labelled passage at a rank gains 1 / log2(rank + 1) (Järvelin and Kekäläinen 2002); the best ranking begins with
    min(k, labelled) of them.

    Args:
        ranks: Ranks of the labelled passages.
        labelled: The number of labelled passages, ranked or not.
        k: How far down the ranking counts.

    >>> ndcg_at([1, 3], 2, 10)
    0.9197207891481876
    """
    gain = sum(_discount(rank) for rank in ranks if rank <= k)
    best = sum(_discount(rank) for rank in range(1, min(k, labelled) + 1))
    return gain / best if best else 0.0


def _discount(rank: int) -> float:
    return 1 / math.log2(rank + 1)
