"""A coordinator that tells each site other survivors: what it gets from all of them opens no site.

The attack is carried out in full, with the real masks and the real answers: the target is told that as many others
are gone as it believes, and gives their seeds away; those are told that it stays, and give their shares of its own
mask; the others are told that the target is gone, and give their seeds with it. Colluding sites give all they hold.
"""

from __future__ import annotations

import numpy as np
import pytest
from summing import Party, party

from fedrag.secure_sum.agreement import own_seed
from fedrag.secure_sum.masking import Revealed, RevealRequest, reveal
from fedrag.secure_sum.masks import add_mask
from fedrag.secure_sum.shares import combine, unseal
from fedrag.secure_sum.sum_terms import threshold

TARGET = "site-00"


def answer(made: Party, name: str, survivors: set[str]) -> Revealed:
    sealed = {sender: masked.sealed[name] for sender, masked in made.masked.items() if sender != name}
    return reveal(made.kept[name], RevealRequest(made.context, tuple(sorted(survivors)), sealed), 0)


def is_opened(made: Party, colluding: int, told_gone: int) -> bool:
    """Attack the first site, telling it that so many honest others are gone; return whether its vector comes out."""
    everyone, t = set(made.names), made.terms.threshold
    bad = made.names[len(made.names) - colluding :]
    honest = [name for name in made.names[1:] if name not in bad]
    gone = honest[:told_gone]
    shares, seeds = {}, {}
    told = answer(made, TARGET, everyone - set(gone))
    shares[TARGET] = told.shares[TARGET]
    seeds |= told.seeds
    for name in honest:
        if name in gone:
            shares[name] = answer(made, name, everyone).shares[TARGET]
        elif len(everyone) > t:
            seeds[name] = answer(made, name, everyone - {TARGET}).seeds[TARGET]
    for name in bad:  # a colluding site is honest in its messages and hands over what it kept
        kept = made.kept[name]
        shares[name] = unseal(made.masked[TARGET].sealed[name], kept.unsealing[TARGET], made.context)
        seeds[name] = kept.seeds[TARGET]
    if len(shares) < t or set(seeds) != everyone - {TARGET}:
        return False
    vector = {name: ring.copy() for name, ring in made.masked[TARGET].vector.items()}
    add_mask(vector, made.layout, own_seed(combine(shares, t, made.names), made.context), -1)
    for seed in seeds.values():
        add_mask(vector, made.layout, seed, -1)  # every other name comes after the target's
    return all(np.array_equal(vector[name], ring) for name, ring in made.plain[TARGET].items())


def any_attack_opens(sites: int, t: int, colluding: int) -> bool:
    made = party(sites, t, size=8)
    most = min(sites - t, sites - 1 - colluding)
    return any(is_opened(made, colluding, told_gone) for told_gone in range(most + 1))


@pytest.mark.parametrize("sites", range(3, 13))
@pytest.mark.parametrize("colluding", [0, 1, 2])
def test_no_lie_about_survivors_opens_a_site(sites, colluding):
    t = threshold(sites, colluding)
    if t > sites:
        pytest.skip("so many colluding sites are refused")
    assert not any_attack_opens(sites, t, colluding)


@pytest.mark.parametrize("sites", [3, 5, 7])
def test_the_usual_majority_is_too_low_a_threshold_and_is_opened(sites):
    """Without this the test above could not fail."""
    assert any_attack_opens(sites, sites // 2 + 1, 0)


@pytest.mark.parametrize(("sites", "colluding"), [(4, 1), (6, 1), (6, 2), (11, 2)])
def test_one_less_than_the_threshold_is_opened_where_the_bound_is_tight(sites, colluding):
    t = threshold(sites, colluding)
    assert t - 1 <= (sites + colluding + 1) / 2
    assert any_attack_opens(sites, t - 1, colluding)
