"""Numbers as whole numbers of a ring: right on average, never out of range, and exact where they can be."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedrag.errors import MessageError
from fedrag.secure_sum.fixed_point import Part, from_ring, to_ring
from fedrag.secure_sum.keystream import PIECE, keystream
from fedrag.secure_sum.masks import add_mask

KEY = hashlib.sha256(b"a key").digest()


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("sites", [3, 4, 20, 1000])
@pytest.mark.parametrize("bound", [10.0, 8.0])  # 8: at 4 sites a limit of 2**61 - 1, which no float64 is
def test_the_largest_values_of_all_sites_together_stay_in_the_ring(bits, sites, bound):
    part = Part("generator", 4, bits, bound, sites)
    largest = to_ring(np.array([bound, -bound, 1e30, -1e30], dtype=np.float32), part, KEY)
    total = np.zeros(4, dtype=part.dtype)
    for _ in range(sites):
        total += largest
    found = from_ring(total, part, sites) / sites
    np.testing.assert_allclose(found, [bound, -bound, bound, -bound], rtol=1e-12)
    assert part.scale >= 2 ** (bits - 1) / sites / bound / 4  # and no bit is given away


def test_a_value_is_rounded_to_a_neighbour_and_is_right_on_average():
    part = Part("generator", 100_000, 32, 10.0, 3)
    step = 1 / part.scale
    ring = to_ring(np.full(part.size, 3.25 * step), part, KEY)
    found = from_ring(ring, part, 1) / step
    assert set(found) == {3.0, 4.0}
    assert abs(found.mean() - 3.25) < 0.006  # four times the deviation of the mean


def test_a_weighted_value_is_one_of_the_two_whole_numbers_around_the_exact_product():
    part = Part("generator", 2000, 64, 10.0 * 10_000, 7)
    values = np.random.default_rng(1).standard_normal(part.size).astype(np.float32)
    ring = to_ring(values, part, KEY, weight=7919).view("<i8")
    for value, whole in zip(values.tolist(), ring.tolist(), strict=True):
        exact = Fraction(value) * 7919 * Fraction(part.scale)
        assert abs(whole - exact) < 1


def test_a_sum_that_so_many_sites_cannot_give_is_refused():
    part = Part("generator", 1, 32, 10.0, 4)
    total = np.array([2 * part.limit + 1], dtype="<u4")
    assert from_ring(total, part, 3)[0] > 20
    with pytest.raises(MessageError, match="out of range"):
        from_ring(total, part, 2)


def test_the_keystream_is_aes_256_in_counter_mode_from_zero():
    draw = keystream(KEY)
    found = b"".join(draw(count).tobytes() for count in (PIECE, 48, 16))
    one_by_one = Cipher(algorithms.AES256(KEY), modes.ECB()).encryptor()
    assert found[:64] == b"".join(one_by_one.update(place.to_bytes(16, "big")) for place in range(4))
    last = (PIECE + 48) // 16
    assert found[-16:] == one_by_one.update(last.to_bytes(16, "big"))


def test_a_mask_that_is_added_and_taken_off_leaves_the_vector():
    layout = Part("numbers", 5, 64, 1.0, 3), Part("generator", 300_000, 32, 1.0, 3)
    vector = {part.name: np.arange(part.size, dtype=part.dtype) for part in layout}
    add_mask(vector, layout, KEY, 1)
    stream = keystream(KEY)
    first = stream(40).tobytes()
    assert vector["numbers"].tobytes() == (np.frombuffer(first, "<u8") + np.arange(5, dtype="<u8")).tobytes()
    add_mask(vector, layout, KEY, -1)
    assert all((vector[part.name] == np.arange(part.size)).all() for part in layout)
