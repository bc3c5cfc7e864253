"""Seeds depend on names alone."""

from __future__ import annotations

from fedrag.seeding import derive_seed


def test_a_seed_is_the_same_on_every_machine():
    assert derive_seed(0, 1, "site-a", "shuffle") == 564334843
    assert derive_seed(7) == 1316523906


def test_every_part_matters_and_so_does_their_order_and_their_border():
    seeds = [
        derive_seed(0, 1, "a", "b"),
        derive_seed(1, 1, "a", "b"),
        derive_seed(0, 2, "a", "b"),
        derive_seed(0, 1, "b", "a"),
        derive_seed(0, 1, "ab"),
        derive_seed(0, 1, "a", "b", ""),
        derive_seed(0, "1a", "b"),
    ]
    assert len(set(seeds)) == len(seeds)


def test_seeds_fill_the_range_that_torch_and_numpy_take():
    seeds = [derive_seed(0, i) for i in range(2000)]
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert len(set(seeds)) == 2000
    assert min(seeds) < 2**31 / 100
    assert max(seeds) > 2**31 * 0.99
