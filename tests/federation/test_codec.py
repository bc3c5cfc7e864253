import numpy as np
import pytest
import torch

from fedrag.errors import MessageError
from fedrag.federation.codec import decode, encode


def random_floats(count: int) -> np.ndarray:
    """Every kind of float32: random bit patterns, and the corners."""
    bits = np.random.default_rng(0).integers(0, 2**32, size=count, dtype=np.uint32)
    corners = np.array(
        [0.0, -0.0, 1.0, np.inf, -np.inf, np.nan, 3.4028235e38, -3.4028235e38, 1e-45, 1.1754944e-38],
        np.float32,
    )
    ties = (np.arange(0x3F80, 0x3F90, dtype=np.uint32) << 16) + 0x8000
    nans = np.array([0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF], np.uint32)
    return np.concatenate([bits.view(np.float32), corners, ties.view(np.float32), nans.view(np.float32)])


def test_float32_comes_back_bit_for_bit():
    flat = random_floats(10_000)
    raw = encode(flat, "float32")
    assert raw.dtype == np.uint8
    assert raw.tobytes() == flat.astype("<f4").tobytes()
    assert decode(raw, "float32", flat.size).tobytes() == flat.tobytes()


def test_bfloat16_rounds_as_torch_does():
    flat = random_floats(200_000)
    ours = decode(encode(flat, "bfloat16"), "bfloat16", flat.size)
    theirs = torch.from_numpy(flat).to(torch.bfloat16).to(torch.float32).numpy()
    nan = np.isnan(flat)
    assert nan.sum() > 4
    assert np.array_equal(np.isnan(ours), nan)
    assert np.array_equal(ours[~nan].view(np.uint32), theirs[~nan].view(np.uint32))


def test_bfloat16_ties_go_to_even():
    flat = np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)
    assert decode(encode(flat, "bfloat16"), "bfloat16", 2).tolist() == [1.0, 1 + 2**-6]


def test_bfloat16_is_two_bytes_a_value_lower_byte_first():
    assert encode(np.array([1.0, -2.0], np.float32), "bfloat16").tolist() == [0x80, 0x3F, 0x00, 0xC0]


@pytest.mark.parametrize("wire", ["float32", "bfloat16"])
def test_what_decode_returns_can_be_changed_without_changing_the_message(wire):
    flat = np.ones(4, np.float32)
    raw = encode(flat, wire)
    raw.flags.writeable = False
    decoded = decode(raw, wire, 4)
    decoded += 1
    assert flat.tolist() == [1, 1, 1, 1]
    assert decode(raw, wire, 4).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("wire", ["float32", "bfloat16"])
def test_empty_update_goes_through(wire):
    assert decode(encode(np.zeros(0, np.float32), wire), wire, 0).shape == (0,)


@pytest.mark.parametrize(("wire", "good"), [("float32", 12), ("bfloat16", 6)])
def test_wrong_number_of_bytes_is_refused(wire, good):
    for count in (0, good - 1, good + 1):
        with pytest.raises(MessageError, match=f"expected {good} bytes for 3 values of {wire}"):
            decode(np.zeros(count, np.uint8), wire, 3)
    with pytest.raises(MessageError, match="expected"):
        decode(np.zeros(good, np.float32), wire, 3)


def test_unknown_number_format_is_refused():
    for attempt in (
        lambda: encode(np.zeros(1, np.float32), "float16"),
        lambda: decode(np.zeros(2, np.uint8), "float16", 1),
    ):
        with pytest.raises(MessageError, match="'float16' is not one of float32, bfloat16"):
            attempt()
