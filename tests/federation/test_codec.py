import numpy as np
import pytest
import torch

from fedrag.errors import MessageError
from fedrag.federation.codec import BLOCK, LARGEST_SCALE, PIECE, byte_count, decode, encode, state_wire


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


@pytest.mark.parametrize("wire", ["float32", "bfloat16", "int8"])
def test_what_decode_returns_can_be_changed_without_changing_the_message(wire):
    flat = np.ones(4, np.float32)
    raw = encode(flat, wire)
    raw.flags.writeable = False
    decoded = decode(raw, wire, 4)
    before = decoded.tolist()
    decoded += 1
    assert flat.tolist() == [1, 1, 1, 1]
    assert decode(raw, wire, 4).tolist() == before == pytest.approx([1, 1, 1, 1])


@pytest.mark.parametrize("wire", ["float32", "bfloat16", "int8"])
def test_empty_update_goes_through(wire):
    assert decode(encode(np.zeros(0, np.float32), wire), wire, 0).shape == (0,)


@pytest.mark.parametrize(("wire", "good"), [("float32", 12), ("bfloat16", 6), ("int8", 7)])
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
        with pytest.raises(MessageError, match="'float16' is not one of float32, bfloat16, int8"):
            attempt()


def update(size: int, seed: int = 0) -> np.ndarray:
    """Return values of either sign and of sizes from 1e-8 to 1, large beside small."""
    random = np.random.default_rng(seed)
    return (10 ** random.uniform(-8, 0, size) * random.choice([-1, 1], size)).astype(np.float32)


def steps(flat: np.ndarray) -> np.ndarray:
    """Return the step of int8 at each element: a 127th of the largest of its 64."""
    largest = [np.abs(flat[start : start + BLOCK]).max() for start in range(0, flat.size, BLOCK)]
    return np.repeat(np.array(largest, np.float64) / 127, BLOCK)[: flat.size]


def through_int8(flat: np.ndarray, seed: int) -> np.ndarray:
    return decode(encode(flat, "int8", seed), "int8", flat.size)


def test_int8_is_right_on_average():
    """The mean over many seeds is within 5 of its standard errors at each of 640 elements."""
    flat, count = np.random.default_rng(0).uniform(-1, 1, 10 * BLOCK).astype(np.float32), 1000
    found = [through_int8(flat, seed).astype(np.float64) for seed in range(count)]
    share = flat / steps(flat) % 1  # the chance to go up
    spread = steps(flat) * np.sqrt(share * (1 - share) / count)
    assert (np.abs(np.mean(found, axis=0) - flat) <= 5 * spread + 2e-5 * steps(flat)).all()
    assert np.abs(np.mean(found, axis=0) - flat).mean() < 0.05 * np.abs(found[0] - flat).mean()


@pytest.mark.parametrize("value", [0.01, -0.01, 0.5, -0.999])
def test_what_is_far_below_a_step_is_not_lost_on_average(value):
    """Rounding to nearest would lose it in every round."""
    flat = np.full((4000, BLOCK), value, np.float32)
    flat[:, 0] = 127
    found = through_int8(flat.reshape(-1), 1).reshape(flat.shape)[:, 1:]
    chance = value % 1
    assert abs(found.mean(dtype=np.float64) - value) < 5 * np.sqrt(chance * (1 - chance) / found.size)


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK + 1, PIECE, PIECE + 1, 3 * PIECE - 5])
def test_int8_is_less_than_a_step_off_anywhere(size):
    flat = update(size, seed=size)
    error = np.abs(through_int8(flat, 7).astype(np.float64) - flat)
    assert (error <= steps(flat) * (1 + 1e-5)).all()
    assert error.max() > 0.5 * steps(flat).min() or size < BLOCK


def test_the_largest_elements_stay_and_whole_steps_are_not_rounded():
    flat = np.array([127, -127, 5, -1, 0, 0, 126] + [0] * 57, np.float32) / 1024
    for seed in range(20):
        np.testing.assert_allclose(through_int8(flat, seed), flat, rtol=0, atol=1e-6 / 1024 * 127)


def test_the_largest_element_is_never_rounded_down():
    """It is 2**-17 below 127 steps, so a threshold of 0 instead of 2**-17 would cost it a step once in 65,536 times."""
    values = encode(np.full(1_000_000, 127 * 1.9, np.float32), "int8", 3)[4 * 1_000_000 // BLOCK :].view(np.int8)
    assert values.min() == values.max() == 127


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    flat = update(1000)
    assert encode(flat, "int8", 3).tobytes() == encode(flat.copy(), "int8", 3).tobytes()
    assert encode(flat, "int8", 3).tobytes() != encode(flat, "int8", 4).tobytes()
    values = encode(np.linspace(-1, 1, 8, dtype=np.float32), "int8", 1)[4:].view(np.int8)  # 91, 54 and 18 and a bit
    assert values.tolist() == [-127, -91, -54, -18, 18, 55, 90, 127]


def test_a_large_tensor_does_not_coarsen_a_small_one_beside_it():
    """The factors A and B of an adapter lie one after the other and differ in size by orders of magnitude."""
    flat = np.concatenate([update(BLOCK, 1), 1e-6 * update(BLOCK, 2)])
    error = np.abs(through_int8(flat, 0) - flat)[BLOCK:]
    assert error.max() <= 1e-6 / 127


@pytest.mark.parametrize("size", [576 * 16, 663_552, 1_000_001])
def test_int8_takes_at_most_27_percent_of_the_bytes(size):
    assert encode(np.zeros(size, np.float32), "int8").size == byte_count(size, "int8") <= 0.27 * 4 * size


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38, 1e-38, 1e30])
def test_blocks_of_extreme_numbers_come_back_within_a_step(value):
    flat = np.full(BLOCK + 3, value, np.float32)
    found = through_int8(flat, 5)
    assert np.abs(found.astype(np.float64) - flat).max() <= max(abs(value) / 127, 1.2e-38)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_int8_of_an_array_that_is_not_finite_is_refused_by_decode(value):
    """A site that diverged must be found, whatever its number format."""
    flat = update(200)
    flat[70] = value
    with pytest.raises(MessageError, match="NaN or infinity"):
        through_int8(flat, 0)


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, -1e-9, 2 * float(LARGEST_SCALE), -np.nan])
def test_a_scale_that_encode_never_writes_is_refused(scale):
    raw = encode(update(100), "int8")
    raw[4:8] = np.array([scale], "<f4").view(np.uint8)
    with pytest.raises(MessageError, match="a scale of an update is not within 0 and"):
        decode(raw, "int8", 100)


def test_any_other_bytes_of_int8_are_finite_numbers():
    raw = np.random.default_rng(0).integers(0, 256, byte_count(BLOCK, "int8"), dtype=np.uint8)
    raw[:4] = np.array([LARGEST_SCALE], "<f4").view(np.uint8)
    raw[4] = 0x80
    assert np.isfinite(decode(raw, "int8", BLOCK)).all()


def test_the_state_is_never_sent_in_int8():
    assert [state_wire(wire) for wire in ("float32", "bfloat16", "int8")] == ["float32", "bfloat16", "bfloat16"]
