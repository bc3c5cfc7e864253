import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrag.errors import ConfigError, MessageError, QuorumError
from fedrag.federation import aggregation
from fedrag.federation.aggregation import Collected, ExactMean, own_rule
from fedrag.federation.update import flatten, manifest_of

MAX_NORM = 1000.0
MAX_WEIGHTS = 2**20


def update(size: int, seed: int) -> np.ndarray:
    """Values of either sign over magnitudes from 1e-12 to 10."""
    random = np.random.default_rng(seed)
    magnitudes = 10 ** random.uniform(-12, 1, size)
    return (magnitudes * random.choice([-1, 1], size)).astype(np.float32)


def mean_of(updates, weights, max_weight_sum=MAX_WEIGHTS):
    mean = ExactMean(len(updates[0]), MAX_NORM, max_weight_sum)
    for flat, weight in zip(updates, weights, strict=True):
        mean.add(flat, weight)
    return mean.result()


def exact_mean_of(updates, weights) -> list[Fraction]:
    """The same in rational numbers."""
    return [
        sum(w * Fraction(float(value)) for w, value in zip(weights, values, strict=True)) / sum(weights)
        for values in zip(*updates, strict=True)
    ]


def test_mean_is_weighted_by_the_weights():
    updates = [np.array([1.0, -2.0], np.float32), np.array([5.0, 2.0], np.float32)]
    assert mean_of(updates, [3, 1]).tolist() == [2.0, -1.0]


@pytest.mark.parametrize("max_weight_sum", [MAX_WEIGHTS, 2**29])
@pytest.mark.parametrize("weight", [1, 3, 1287, 2**20 - 1])
def test_one_site_alone_gets_its_own_bits_back(weight, max_weight_sum):
    flat = update(200_000, seed=weight)
    assert mean_of([flat], [weight], max_weight_sum).tobytes() == flat.tobytes()


@pytest.mark.parametrize("weights", [(1, 1), (3, 10), (7, 1000, 12345)])
def test_sites_with_equal_updates_get_these_bits_back(weights):
    flat = update(200_000, seed=1)
    assert mean_of([flat] * len(weights), weights).tobytes() == flat.tobytes()


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.lists(st.floats(-1000, 1000, width=32), min_size=3, max_size=3), st.integers(1, 50_000)),
        min_size=1,
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_order_of_arrival_does_not_matter_and_the_mean_is_the_exact_one_rounded(replies, random):
    updates = [np.array(values, np.float32) for values, _ in replies]
    weights = [weight for _, weight in replies]
    mean = mean_of(updates, weights)
    order = random.sample(range(len(replies)), len(replies))
    assert mean_of([updates[i] for i in order], [weights[i] for i in order]).tobytes() == mean.tobytes()
    for value, exact in zip(mean, exact_mean_of(updates, weights), strict=True):
        half_unit = Fraction(float(np.spacing(np.float32(abs(float(exact)))))) / 2
        # The fixed point ends at 2**-82 here; within half a float32 unit is as near as a float32 can be.
        assert abs(Fraction(float(value)) - exact) <= half_unit * (1 + Fraction(1, 2**20)) + Fraction(1, 2**80)


def test_terms_that_cancel_leave_what_floating_point_would_lose():
    large, small = np.array([999.0], np.float32), np.array([1e-12], np.float32)
    mean = mean_of([large, small, -large], [1000, 1, 1000])
    assert mean[0] == np.float32(float(small[0]) / 2001)


def test_any_of_many_orders_gives_the_same_bits_where_floating_sums_do_not():
    updates = [update(50_000, seed) for seed in range(20)]
    weights = [37 * seed + 11 for seed in range(20)]
    backwards = mean_of(updates[::-1], weights[::-1])
    assert mean_of(updates, weights).tobytes() == backwards.tobytes()
    floating = [
        np.add.reduce([np.float32(w) * u for w, u in zip(ws, us, strict=True)])
        for ws, us in [(weights, updates), (weights[::-1], updates[::-1])]
    ]
    assert not np.array_equal(*floating)


def test_carries_between_the_limbs_lose_nothing(monkeypatch):
    updates = [update(1000, seed) for seed in range(7)]
    weights = [1, 2, 3, 40, 500, 6000, 70_000]
    mean = mean_of(updates, weights)
    monkeypatch.setattr(aggregation, "ADDS_PER_CARRY", 1)
    assert mean_of(updates, weights).tobytes() == mean.tobytes()


def test_a_thousand_sites_of_full_weights_have_the_exact_mean_and_equal_ones_keep_every_bit():
    # One 64-bit integer an element does not suffice: at the default norm limit it ends at 1e-13 of such a mean.
    random = np.random.default_rng(0)
    weights = [int(weight) for weight in random.integers(1, 5000, 1000)]
    updates = [random.normal(0, 1e-5, 500).astype(np.float32) for _ in weights]
    terms = np.array(weights)[:, None] * np.array(updates, np.float64)  # each product is exact
    exact = np.array([math.fsum(term) / sum(weights) for term in terms.T], np.float32)
    assert mean_of(updates, weights, sum(weights)).tobytes() == exact.tobytes()
    assert mean_of(updates[:1] * 1000, weights, sum(weights)).tobytes() == updates[0].tobytes()


def test_an_update_may_be_overwritten_once_it_was_added():
    mean = ExactMean(2, MAX_NORM, 10)
    flat = np.array([1.0, -2.0], np.float32)
    mean.add(flat, 1)
    flat[:] = 7.0
    assert mean.result().tolist() == [1.0, -2.0]


@pytest.mark.parametrize("value", [2.0**-9, -(2.0**-9), 2.0**-9 - 2.0**-33, 1.5 * 2.0**-10, 2.0**-10 + 2.0**-33])
def test_terms_with_a_part_in_each_limb_are_exact(value):
    mean = ExactMean(3, 1.0, 1)
    mean.add(np.array([value, -value, value / 3], np.float32), 1)
    assert mean.result().tolist() == np.array([value, -value, value / 3], np.float32).tolist()


def test_thousands_of_updates_at_the_bound_do_not_overflow():
    # The rest below the high limb is as large as it can be, and always of the same sign.
    count = 5000
    mean = ExactMean(2, 1.0, count)
    high = 1 - 2.0**-24
    low = (0.5 - 2.0**-25) / 2**48  # the scale that fits 61 bits below 5000
    for _ in range(count):
        mean.add(np.array([high, -low], np.float32), 1)
    assert mean.result().tolist() == [high, -low]


def test_result_can_be_asked_twice_and_between_additions():
    mean = ExactMean(1, MAX_NORM, 10)
    mean.add(np.array([1.0], np.float32), 1)
    assert mean.result().tolist() == mean.result().tolist() == [1.0]
    mean.add(np.array([3.0], np.float32), 1, "site-b")
    assert mean.result().tolist() == [2.0]
    assert (mean.weight_sum, mean.count) == (2, 2)


def test_sizes_around_the_block_are_covered_to_the_end():
    for size in (0, 1, aggregation.BLOCK - 1, aggregation.BLOCK, aggregation.BLOCK + 1):
        flat = update(size, seed=size)
        assert mean_of([flat], [5]).tobytes() == flat.tobytes()


@pytest.mark.parametrize(
    ("flat", "weight", "message"),
    [
        ([1.0, 2.0], 0, "the weight of an update is 0"),
        ([1.0, 2.0], -3, "the weight of an update is -3"),
        ([1.0, 2.0], 2**29, "the weight of an update is 536870912"),
        ([1.0, 2.0], 8, "add up to 11, more than the agreed 10"),
        ([1.0, 1000.1], 1, "not within"),
        ([-1000.1, 1.0], 1, "not within"),
        ([1.0, np.nan], 1, "not within"),
        ([1.0, -np.inf], 1, "not within"),
        ([1.0], 1, r"shape \(1,\), expected float32 of shape \(2,\)"),
    ],
)
def test_update_out_of_bounds_is_refused_and_leaves_the_mean_as_it_was(flat, weight, message):
    mean = ExactMean(2, MAX_NORM, 10)
    mean.add(np.array([1.5, -1000.0], np.float32), 3)
    with pytest.raises(MessageError, match=message):
        mean.add(np.array(flat, np.float32), weight)
    assert mean.result().tolist() == [1.5, -1000.0]
    assert (mean.weight_sum, mean.count) == (3, 1)


def test_double_precision_update_is_refused():
    with pytest.raises(MessageError, match="float64"):
        ExactMean(1, MAX_NORM, 10).add(np.array([1.0]), 1)


def test_mean_of_nothing_is_an_error():
    with pytest.raises(QuorumError):
        ExactMean(1, MAX_NORM, 10).result()


TENSORS = {"a": np.zeros((2, 1), np.float32), "b": np.zeros(1, np.float32)}


def collected(rule, manifest, **told):
    return Collected(own_rule(rule, manifest, **told), manifest.size)


def median(updates, weights):
    return {name: np.median([tensors[name] for tensors in updates], axis=0) for name in updates[0]}


def test_own_rule_sees_named_tensors_and_weights_in_order_of_site_name():
    seen = []

    def first(updates, weights):
        seen.append(([tensors["b"].tolist() for tensors in updates], weights))
        return updates[0]

    aggregator = collected(first, manifest_of(TENSORS))
    aggregator.add(np.array([1, 2, 3], np.float32), 30, "site-b")
    aggregator.add(np.array([4, 5, 6], np.float32), 10, "site-a")
    assert aggregator.result().tolist() == [4, 5, 6]
    assert seen == [([[6.0], [3.0]], [10, 30])]


def test_own_rule_decides_the_aggregate():
    aggregator = collected(median, manifest_of(TENSORS))
    for site, values in {"x": [1, 9, 3], "y": [7, 8, 9], "z": [2, 2, 900]}.items():
        aggregator.add(np.array(values, np.float32), 1, site)
    assert aggregator.result().dtype == np.float32
    assert aggregator.result().tolist() == [2, 8, 9]


def test_weighted_mean_written_as_a_rule_agrees_with_the_exact_mean():
    def average(updates, weights):
        return {
            name: np.average([tensors[name] for tensors in updates], axis=0, weights=weights) for name in updates[0]
        }

    flats = {
        name: flatten({"a": update(2, seed).reshape(2, 1), "b": update(1, seed)}, manifest_of(TENSORS))
        for seed, name in enumerate("pqr")
    }
    own, exact = collected(average, manifest_of(TENSORS)), ExactMean(3, MAX_NORM, 100)
    for weight, (site, flat) in enumerate(flats.items(), start=1):
        own.add(flat, weight, site)
        exact.add(flat, weight, site)
    np.testing.assert_allclose(own.result(), exact.result(), rtol=1e-6)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"a": np.zeros((2, 1))}, "rule does not fit the component: tensor 'b' is missing"),
        ({"a": np.zeros(2), "b": np.zeros(1)}, "tensor 'a' has shape"),
        ({"a": np.zeros((2, 1)), "b": np.array([np.nan])}, "rule returned a value that is not finite"),
    ],
)
def test_own_rule_that_returns_something_else_is_named(returned, message):
    def rule(updates, weights):
        return returned

    aggregator = collected(rule, manifest_of(TENSORS))
    aggregator.add(np.zeros(3, np.float32), 1, "x")
    with pytest.raises(ConfigError, match=message):
        aggregator.result()


def test_own_rule_gets_one_update_of_the_right_size_a_site():
    aggregator = collected(median, manifest_of(TENSORS))
    with pytest.raises(QuorumError):
        aggregator.result()
    aggregator.add(np.zeros(3, np.float32), 1, "x")
    with pytest.raises(MessageError, match="'x' gave two updates"):
        aggregator.add(np.zeros(3, np.float32), 1, "x")
    with pytest.raises(MessageError, match="shape"):
        aggregator.add(np.zeros(4, np.float32), 1, "y")


def test_own_rule_that_asks_is_told_its_component_and_the_state_which_it_cannot_write():
    state = {"a": np.full((2, 1), 5, np.float32), "b": np.full(1, 6, np.float32)}
    seen = []

    def shrink(updates, weights, *, state, component):
        seen.append((component, {name: tensor.tolist() for name, tensor in state.items()}))
        with pytest.raises(ValueError, match="read-only"):
            state["a"][0] = 0.0
        return {name: -0.5 * tensor for name, tensor in state.items()}

    aggregator = collected(shrink, manifest_of(state), component="retriever", state=state)
    aggregator.add(np.zeros(3, np.float32), 1, "x")
    assert aggregator.result().tolist() == [-2.5, -2.5, -3.0]
    assert seen == [("retriever", {"a": [[5.0], [5.0]], "b": [6.0]})]
    state["a"][0] = 1.0  # the server's own tensors can still be written


def test_a_rule_with_two_arguments_or_without_a_signature_is_asked_as_before():
    for rule in (median, lambda updates, weights: updates[0]):
        aggregator = collected(rule, manifest_of(TENSORS), component="generator", state=TENSORS)
        aggregator.add(np.ones(3, np.float32), 1, "x")
        assert aggregator.result().tolist() == [1, 1, 1]
