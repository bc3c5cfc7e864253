"""Takes the labels of most training questions away, to measure what is learnt without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fedrag.data.splitting import split_of
from fedrag.errors import DataError
from fedrag.seeding import derive_seed
from fedrag.types import Site


def unlabel(sites: Sequence[Site], keep: float, seed: int = 0) -> list[Site]:
    """Return sites in which a share of the training questions keep answers and passages; the others are unanswered.

    A question keeps its labels at every site or at none: its text decides, with the seed.

    Args:
        sites: The sites.
        keep: The share that keeps its labels, in (0, 1).
        seed: Seed of the choice.

    Raises:
        DataError: The share is not between 0 and 1, or no question would keep its labels.
    """
    if not 0 < keep < 1:
        raise DataError(f"--keep {keep:g}: expected the share of questions that keep their labels, between 0 and 1")
    fractions, chosen = (keep, 0.0, 1.0 - keep), derive_seed(seed, "unlabel")
    found = []
    for site in sites:
        keeps = [split_of(question.question, fractions, chosen) == "train" for question in site.train]
        bare = [
            replace(question, answers=(), passage_ids=(), hard_negative_ids=(), origin="")
            for question, kept in zip(site.train, keeps, strict=True)
            if not kept
        ]
        train = tuple(question for question, kept in zip(site.train, keeps, strict=True) if kept)
        found.append(replace(site, train=train, unanswered=(*site.unanswered, *bare)))
    if not any(site.train for site in found):
        raise DataError(f"--keep {keep:g}: no training question would keep its labels; choose more, or another --seed")
    return found
