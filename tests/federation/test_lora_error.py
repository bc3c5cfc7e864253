import numpy as np
import pytest

from fedrag.federation.lora_error import AggregationError, exact_aggregation_error, lora_pairs
from fedrag.federation.update import manifest_of

LAYERS = {
    f"model.layers.{i}.{kind}": shape
    for i in range(4)
    for kind, shape in {"q_proj": (24, 40), "down_proj": (40, 90)}.items()
}
RANK = 4


def factors(seed: int, drift: float = 0.3) -> dict[str, np.ndarray]:
    """Factors of one site: common ones that have drifted."""
    common, own = np.random.default_rng(99), np.random.default_rng(seed)
    tensors = {}
    for layer, (d, n) in LAYERS.items():
        for name, shape in ((f"{layer}.lora_A.weight", (RANK, n)), (f"{layer}.lora_B.weight", (d, RANK))):
            value = common.standard_normal(shape) + drift * own.standard_normal(shape)
            tensors[name] = value.astype(np.float32)
    tensors["model.norm.weight"] = own.standard_normal(7).astype(np.float32)
    return tensors


def mean_of(sites, weights):
    return {name: np.average([site[name] for site in sites], axis=0, weights=weights) for name in sites[0]}


def dense_error(sites, weights) -> float:
    """The definition, with the d x n products formed."""
    mean, error, total = mean_of(sites, weights), 0.0, 0.0
    for layer in LAYERS:
        a, b = f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"
        products = [site[b].astype(np.float64) @ site[a].astype(np.float64) for site in sites]
        product = np.average(products, axis=0, weights=weights)
        error += np.sum((product - mean[b] @ mean[a]) ** 2)
        total += np.sum(product**2)
    return float(np.sqrt(error / total))


def sketched_error(sites, weights, mean=None, seed=0):
    sketch = AggregationError(manifest_of(sites[0]), seed)
    for site, weight in zip(sites, weights, strict=True):
        half = {name: value / 2 for name, value in site.items()}
        sketch.add(half, half, weight)
    return sketch.result(mean or mean_of(sites, weights))


def test_pairs_are_found_by_name_with_any_prefix_and_suffix():
    tensors = {
        "base.q.lora_A.weight": np.ones((2, 8)),
        "base.q.lora_B.weight": np.ones((4, 2)),
        "base.k.lora_B.default.weight": np.ones((4, 2)),
        "base.k.lora_A.default.weight": np.ones((2, 8)),
        "alone.lora_A.weight": np.ones((2, 8)),
        "convolution.lora_A.weight": np.ones((2, 8, 3, 3)),
        "convolution.lora_B.weight": np.ones((4, 2, 1, 1)),
        "norm.weight": np.ones(3),
    }
    assert lora_pairs(manifest_of(tensors)) == (
        ("base.k.lora_B.default.weight", "base.k.lora_A.default.weight"),
        ("base.q.lora_B.weight", "base.q.lora_A.weight"),
    )


@pytest.mark.parametrize("weights", [[1, 1], [3, 1, 6], [5, 4, 3, 2, 1]])
def test_exact_error_is_that_of_the_dense_products(weights):
    sites = [factors(seed) for seed in range(len(weights))]
    assert exact_aggregation_error(sites, weights) == pytest.approx(dense_error(sites, weights), abs=2e-9)


def test_stacked_rank_may_exceed_the_layer():
    sites, weights = [factors(seed) for seed in range(12)], list(range(1, 13))
    assert exact_aggregation_error(sites, weights) == pytest.approx(dense_error(sites, weights), abs=2e-9)


@pytest.mark.parametrize("drift", [1e-4, 0.1, 1.0])
def test_sketch_estimates_the_exact_error(drift):
    sites, weights = [factors(seed, drift) for seed in range(5)], [3, 1, 4, 1, 5]
    exact = exact_aggregation_error(sites, weights)
    assert 0 < exact < 1
    estimates = [sketched_error(sites, weights, seed=seed) for seed in range(20)]
    assert estimates == pytest.approx([exact] * 20, rel=0.2)
    assert np.mean(estimates) == pytest.approx(exact, rel=0.03)


def test_sketch_depends_on_the_seed_alone_and_not_on_the_order_of_arrival():
    sites, weights = [factors(seed) for seed in range(5)], [3, 1, 4, 1, 5]
    estimate = sketched_error(sites, weights)
    assert sketched_error(sites[::-1], weights[::-1]) == estimate
    assert sketched_error(sites, weights, seed=1) != estimate


def test_one_site_or_equal_sites_have_no_error():
    site = factors(0)
    assert sketched_error([site], [7], mean=site) == 0.0
    assert sketched_error([site, site, site], [7, 2, 3], mean=site) == 0.0
    assert exact_aggregation_error([site], [7]) == 0.0


def test_sites_that_share_one_factor_have_no_error():
    sites = [factors(seed) for seed in range(3)]
    for site in sites:
        site.update({name: value for name, value in sites[0].items() if "lora_A" in name})
    assert exact_aggregation_error(sites, [1, 2, 3]) == 0.0
    assert sketched_error(sites, [1, 2, 3]) == 0.0


def test_opposite_factors_have_a_known_error():
    # (1)(1) and (-1)(-1): the mean product is 1, the product of the means 0.
    sites = [{"q.lora_A.weight": np.float32([[s]]), "q.lora_B.weight": np.float32([[s]])} for s in (1, -1)]
    assert exact_aggregation_error(sites, [1, 1]) == 1.0
    assert sketched_error(sites, [1, 1]) == 1.0


def test_adapters_that_are_still_zero_have_no_error():
    site = {name: np.zeros_like(value) if "lora_B" in name else value for name, value in factors(0).items()}
    assert sketched_error([site, site], [1, 1]) == 0.0
    assert exact_aggregation_error([site, site], [1, 1]) == 0.0


def test_without_lora_pairs_there_is_nothing_to_report():
    full = {"encoder.weight": np.ones((3, 4), np.float32)}
    assert sketched_error([full], [1]) is None
    assert exact_aggregation_error([full], [1]) is None
