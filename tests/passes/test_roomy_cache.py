"""The cache with room holds what transformers' own holds, and copies nothing."""

from __future__ import annotations

import torch
from transformers import DynamicCache

from fedrag.passes.roomy_cache import RoomyCache


def test_it_holds_what_the_cache_of_transformers_holds_also_beyond_its_room():
    random = torch.Generator().manual_seed(0)
    ours, theirs = RoomyCache(6), DynamicCache()
    places = set()
    for tokens in (4, 1, 1, 1, 2):  # the last three have no room
        keys, values = (torch.randn(2, 3, tokens, dim, generator=random) for dim in (8, 5))
        for layer in range(2):
            for found, expected in zip(
                ours.update(keys, values, layer), theirs.update(keys, values, layer), strict=True
            ):
                assert torch.equal(found, expected)
        if ours.get_seq_length() <= 6:
            places.add(ours.layers[0].keys.data_ptr())
        assert ours.get_seq_length() == theirs.get_seq_length()
    assert len(places) == 1
