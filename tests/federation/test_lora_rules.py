"""The rules for adapters against float64 arithmetic that forms the products, and what they move in real rounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import PeftModel
from sentence_transformers import SentenceTransformer
from test_rounds import run_state
from tiny_federation import (
    client_folders,
    federate,
    is_changed,
    node_configs,
    tiny_config,
    with_faults,
    write_small_sites,
)
from transformers import AutoModelForCausalLM

from fedrag.components.export import export_models
from fedrag.config.inputs import DataConfig
from fedrag.config.run_settings import SimulationConfig
from fedrag.federation.codec import decode
from fedrag.federation.lora_rules import SideAdapter, best_factors
from fedrag.federation.low_rank import best_of_rank, stacked_sum
from fedrag.federation.update import add, manifest_of, unflatten
from fedrag.models.resident import resident_generator, resident_retriever
from fedrag.models.stock import computing_as_stock
from fedrag.simulation.simulate import simulate
from fedrag.site.client_app import make_client_app
from fedrag.site.site_config import Policy


@pytest.fixture(scope="module")
def sites(tmp_path_factory, tiny_home):
    return write_small_sites(tmp_path_factory.mktemp("sites"), a=3, b=5, c=4)


def scenario(sites, rounds=1, **federation):
    federation = {"rounds": rounds, "schedule": "generator", **federation}
    return tiny_config(sites, generator={"epochs": 3, "learning_rate": 0.02}, federation=federation)


def factors(tensors, letter):
    return {name: tensor for name, tensor in tensors.items() if f".lora_{letter}." in name}


def products(tensors):
    """Form every product B A in float64."""
    names = {name: name.replace("lora_A", "lora_B") for name in tensors if "lora_A" in name}
    return {a: tensors[b].astype(np.float64) @ tensors[a].astype(np.float64) for a, b in names.items()}


def replies_of(config, path, **options):
    """Run a federation and return the bytes of each site's reply in each round."""
    sent = {}

    def noting(message, context, real):
        reply = real(message, context)
        name, number = context.node_config["site-name"], message.content["request"]["round"]
        sent[number, name] = reply.content["update"]["generator"].numpy()
        return reply

    nodes = node_configs(client_folders(config), path / "sites")
    faults = {node["site-name"]: noting for node in nodes}
    state, run = federate(config, path, app=with_faults(faults), **options)
    return state, run, sent


def sites_now(sent, number, start, names=None):
    """Return each site's whole factors after a round, from the numbers that it sent."""
    names = names or list(start)
    found = []
    for _, raw in sorted((site, raw) for (told, site), raw in sent.items() if told == number):
        flat, offset, now = decode(raw, "float32", raw.size // 4), 0, dict(start)
        for name in names:
            size = start[name].size
            now[name] = start[name].astype(np.float64) + flat[offset : offset + size].reshape(start[name].shape)
            offset += size
        assert offset == flat.size
        found.append(now)
    return found


def mean_products(found, weights):
    each = [products(now) for now in found]
    return {a: np.average([one[a] for one in each], axis=0, weights=weights) for a in each[0]}


def test_ffa_leaves_every_a_as_it_began_and_its_mean_is_that_of_the_products(sites, tmp_path):
    config = scenario(sites, rounds=2, rule="ffa")
    state, run, sent = replies_of(config, tmp_path / "run")
    start, middle = run_state(run, 0)["generator"], run_state(run, 1)["generator"]
    bs = list(factors(start, "B"))
    for name, tensor in factors(start, "A").items():
        assert state["generator"][name].tobytes() == tensor.tobytes()
    for number, before, after in ((1, start, middle), (2, middle, state["generator"])):
        wanted = mean_products(sites_now(sent, number, before, bs), [3, 5, 4])
        for a, product in products(after).items():
            np.testing.assert_allclose(product, wanted[a], atol=1e-7)
            assert np.abs(product).max() > 1e-4
        assert run.rounds()[number - 1]["aggregation_error"]["generator"] < 1e-6


def test_ffa_replies_hold_b_alone(sites, tmp_path):
    _, run, sent = replies_of(scenario(sites, rule="ffa"), tmp_path / "run")
    start = run_state(run, 0)["generator"]
    size = sum(tensor.size for tensor in factors(start, "B").values())
    assert {raw.size for raw in sent.values()} == {4 * size}
    assert size < 0.7 * sum(tensor.size for tensor in start.values())


def test_rolora_trains_b_in_odd_rounds_and_a_in_even_ones_and_is_exact_in_both(sites, tmp_path):
    config = scenario(sites, rounds=3, rule="rolora")
    _, run, sent = replies_of(config, tmp_path / "run")
    states = [run_state(run, number)["generator"] for number in (1, 2, 3)]  # of these the checkpoints are kept
    for number, (earlier, later) in enumerate(zip(states, states[1:], strict=False), start=2):
        moved, still = ("A", "B") if number == 2 else ("B", "A")
        for name, tensor in factors(earlier, still).items():
            assert later[name].tobytes() == tensor.tobytes()
        assert any((later[name] != tensor).any() for name, tensor in factors(earlier, moved).items())
        wanted = mean_products(sites_now(sent, number, earlier, list(factors(earlier, moved))), [3, 5, 4])
        for a, product in products(later).items():
            np.testing.assert_allclose(product, wanted[a], atol=1e-7)


def test_rolora_counts_the_rounds_of_its_component(sites, tmp_path):
    """In an alternate schedule the retriever trains in rounds 2 and 4: B first, then A."""
    config = tiny_config(
        sites, data={"only": ["a"]}, federation={"rounds": 4, "schedule": "alternate", "rule": "rolora"}
    )
    _, run = federate(config, tmp_path / "run")
    second, third, last = (run_state(run, number)["retriever"] for number in (2, 3, 4))
    assert all((last[name] == tensor).all() for name, tensor in factors(third, "B").items())
    assert any((last[name] != tensor).any() for name, tensor in factors(third, "A").items())
    assert any(tensor.any() for tensor in factors(second, "B").values())


def test_fedavg_of_both_factors_is_not_the_mean_of_the_products(sites, tmp_path):
    """What the other rules are there for; the tests of exactness above would fail with it."""
    state, run, sent = replies_of(scenario(sites, rounds=2), tmp_path / "run")
    before = run_state(run, 1)["generator"]
    wanted = mean_products(sites_now(sent, 2, before), [3, 5, 4])
    assert max(np.abs(p - wanted[a]).max() for a, p in products(state["generator"]).items()) > 1e-5
    assert is_changed(state, run_state(run, 1), "generator")


def best_approximation(product, rank):
    left, values, right = np.linalg.svd(product)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def test_svd_gives_the_best_product_of_the_rank_for_the_mean_of_the_products(sites, tmp_path):
    state, run, sent = replies_of(scenario(sites, rounds=2, rule="svd"), tmp_path / "run")
    before = run_state(run, 1)["generator"]
    wanted = mean_products(sites_now(sent, 2, before), [3, 5, 4])
    for a, product in products(state["generator"]).items():
        assert np.linalg.matrix_rank(wanted[a]) > 2
        np.testing.assert_allclose(product, best_approximation(wanted[a], 2), atol=2e-6)
    averaged, run, sent = replies_of(scenario(sites, rounds=2), tmp_path / "fedavg")
    exact = mean_products(sites_now(sent, 2, run_state(run, 1)["generator"]), [3, 5, 4])
    off = {a: np.linalg.norm(p - exact[a]) for a, p in products(averaged["generator"]).items()}
    best = {a: np.linalg.norm(best_approximation(exact[a], 2) - exact[a]) for a in off}
    assert all(off[a] > best[a] for a in off)


def test_svd_averages_sites_of_different_ranks(sites, tmp_path):
    """A site of rank 1 sends a product of rank 1, which came from the best one of what it received."""
    config = scenario(sites, rounds=2, rule="svd")
    nodes = node_configs(client_folders(config), tmp_path / "run" / "sites")
    nodes[0]["max-rank"] = "1"
    state, run, sent = replies_of(config, tmp_path / "run", nodes=nodes)
    before = run_state(run, 1)["generator"]
    found = sites_now(sent, 2, before)
    small, *others = [products(now) for now in found]
    moved = 0.0
    for a, product in small.items():
        assert np.linalg.matrix_rank(product, tol=1e-6) == 1
        assert all(np.linalg.matrix_rank(other[a], tol=1e-6) == 2 for other in others)
        moved = max(moved, np.abs(product - best_approximation(products(before)[a], 1)).max())
    assert moved > 1e-4
    wanted = mean_products(found, [3, 5, 4])
    for a, product in products(state["generator"]).items():
        np.testing.assert_allclose(product, best_approximation(wanted[a], 2), atol=2e-6)


def test_a_simulation_gives_its_sites_their_ranks(sites, tmp_path):
    whole, small = (
        simulate(
            scenario(sites, rule="svd").model_copy(update={"simulation": SimulationConfig(threads=1, ranks=ranks)}),
            out=tmp_path / str(len(ranks)),
        ).load_result()["generator"]
        for ranks in ({}, {"a": 1, "b": 1, "c": 1})
    )
    assert all(np.linalg.matrix_rank(product, tol=1e-6) == 2 for product in products(whole).values())
    # The mean of three products of rank 1 has up to rank 3; that of one site alone has its own.
    alone = tiny_config(
        sites,
        data={"only": ["b"]},
        generator={"epochs": 3, "learning_rate": 0.02},
        federation={"rounds": 2, "schedule": "generator", "rule": "svd"},
        simulation={"ranks": {"b": 1}},
    )
    for product in products(simulate(alone, out=tmp_path / "alone").load_result()["generator"]).values():
        assert np.linalg.matrix_rank(product, tol=1e-6) == 1
    assert any((whole[name] != small[name]).any() for name in whole)


def test_a_site_trains_no_larger_rank_than_its_policy_allows(sites, tmp_path):
    config = scenario(sites, rounds=2, rule="svd").model_copy(
        update={"data": DataConfig(sites=str(sites), only=("b",))}
    )
    state, _ = federate(config, tmp_path / "run", app=make_client_app(policy=Policy(max_rank=1)))
    for product in products(state["generator"]).values():
        assert np.linalg.matrix_rank(product, tol=1e-6) == 1


def dense(random, d, n, r):
    return random.normal(size=(d, r)), random.normal(size=(r, n))


def test_the_stacked_factors_have_the_sum_of_the_products_with_ranks_of_their_own():
    random = np.random.default_rng(0)
    pairs = [dense(random, 30, 20, rank) for rank in (2, 5, 3)]
    shares = [0.5, 0.3, 0.2]
    wanted = sum(share * b @ a for share, (b, a) in zip(shares, pairs, strict=True))
    b, a = stacked_sum(shares, *zip(*pairs, strict=True))
    assert (b.shape, a.shape) == ((30, 10), (10, 20))
    np.testing.assert_allclose(b @ a, wanted, atol=1e-12)
    for rank in (1, 4, 10):
        best_b, best_a = best_of_rank(b, a, rank)
        assert (best_b.shape, best_a.shape) == ((30, rank), (rank, 20))
        np.testing.assert_allclose(best_b @ best_a, best_approximation(wanted, rank), atol=1e-12)
        np.testing.assert_allclose(best_a @ best_a.T, np.eye(rank), atol=1e-12)


def test_the_same_product_gives_the_same_factors_however_it_is_written():
    random = np.random.default_rng(1)
    b, a = dense(random, 12, 9, 3)
    mixed = random.normal(size=(3, 3))
    first, second = best_of_rank(b, a, 3), best_of_rank(b @ mixed, np.linalg.inv(mixed) @ a, 3)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)


@pytest.mark.parametrize(("d", "n"), [(3, 9), (9, 3), (2, 2)])
def test_svd_of_a_layer_narrower_than_the_rank_is_exact_and_leaves_the_rest_idle(d, n):
    random = np.random.default_rng(2)
    state = {"q.lora_A.weight": random.normal(size=(4, n)).astype(np.float32)}
    state["q.lora_B.weight"] = np.zeros((d, 4), np.float32)
    manifest = manifest_of(state)
    flats = [random.normal(size=manifest.size).astype(np.float32) for _ in range(3)]
    new = add(state, unflatten(best_factors(state, manifest)(flats, [1, 2, 1]), manifest))
    found = [{k: state[k] + t.astype(np.float64) for k, t in unflatten(f, manifest).items()} for f in flats]
    wanted = mean_products(found, [1, 2, 1])["q.lora_A.weight"]
    np.testing.assert_allclose(products(new)["q.lora_A.weight"], wanted, atol=1e-5)
    assert not new["q.lora_B.weight"][:, min(d, n) :].any()
    np.testing.assert_allclose(new["q.lora_A.weight"][min(d, n) :], state["q.lora_A.weight"][min(d, n) :], atol=1e-6)


def test_svd_averages_what_is_no_pair_of_factors():
    state = {"experts.lora_A.weight": np.zeros((2, 3), np.float32), "bias": np.zeros(2, np.float32)}
    manifest = manifest_of(state)
    flats = [np.full(8, value, np.float32) for value in (1.0, 4.0)]
    assert best_factors(state, manifest)(flats, [2, 1]).tolist() == [2.0] * 8


def test_exact_keeps_beside_the_mean_factors_what_the_mean_of_the_products_holds_beyond_them(sites, tmp_path):
    state, run, sent = replies_of(scenario(sites, rounds=2, rule="exact"), tmp_path / "run")
    before, after = run_state(run, 1)["generator"], state["generator"]
    trained = [name for name in before if ".lora_side_" not in name]
    found = sites_now(sent, 2, before, trained)
    wanted = mean_products(found, [3, 5, 4])
    means = {name: np.average([now[name] for now in found], axis=0, weights=[3, 5, 4]) for name in trained}
    factors_alone, sides_before, sides = products(after), side_products(before), side_products(after)
    assert set(sides) == set(wanted)
    for name in trained:
        np.testing.assert_allclose(after[name], means[name], atol=1e-7)  # A and B as by fedavg
    for a, product in wanted.items():
        whole = product + sides_before.get(a, 0)  # the sites trained beside the side adapter that they received
        np.testing.assert_allclose(factors_alone[a] + sides[a], whole, atol=1e-7)
        assert np.abs(factors_alone[a] - product).max() > 1e-6


def side_products(tensors):
    sides = [name for name in tensors if ".lora_side_A." in name]
    return {
        a.replace(".lora_side_", ".lora_"): tensors[a.replace("_A.", "_B.")].astype(np.float64) @ tensors[a]
        for a in sides
    }


def test_a_side_adapter_takes_part_in_training_search_and_export(sites, tmp_path):
    """The exported adapter, of a higher rank, gives the logits of the model in training; so do merged weights."""
    config = tiny_config(
        sites,
        generator={"epochs": 6, "learning_rate": 0.05},
        retriever={"epochs": 6, "learning_rate": 0.05},
        federation={"rounds": 1, "rule": "exact"},
    )
    state, run = federate(config, tmp_path / "run")
    generator = resident_generator(config, "cpu")
    ids = torch.arange(5, 25)[None]

    def logits(tensors):
        generator.set_adapter(tensors)
        return computed(generator.model)

    def computed(model):
        """Compute in float64: the weights are large here, and rounding differs between processors."""
        with torch.no_grad():
            found = model.double()(input_ids=ids).logits
        model.float()
        return found

    whole = logits(state["generator"])
    alone = logits({name: t for name, t in state["generator"].items() if ".lora_side_" not in name})
    assert (whole - alone).abs().max() > 0.1
    export_models(config, state, tmp_path / "final", copies=True)
    base = AutoModelForCausalLM.from_pretrained(generator.fetched.folder, dtype=torch.float32)
    exported = PeftModel.from_pretrained(base, str(tmp_path / "final" / "generator"))
    torch.testing.assert_close(computed(exported), whole, atol=1e-6, rtol=1e-6)
    generator.set_adapter(state["generator"])
    with computing_as_stock(generator.model):
        torch.testing.assert_close(computed(generator.model), whole, atol=1e-6, rtol=1e-6)
    retriever = resident_retriever(config, "cpu")
    retriever.set_state(state["retriever"])
    vectors = retriever.encode_passages(["a book", "a late fee"])
    key = retriever.passage_key()
    stored = SentenceTransformer(str(tmp_path / "final" / "retriever"), device="cpu")
    np.testing.assert_allclose(stored.encode(["a book", "a late fee"]), vectors, atol=1e-5)
    retriever.set_state({name: t for name, t in state["retriever"].items() if ".lora_side_" not in name})
    assert np.abs(retriever.encode_passages(["a book", "a late fee"]) - vectors).max() > 1e-6
    assert retriever.passage_key() != key


def test_the_rank_of_a_side_adapter_is_that_of_the_residual_and_no_more():
    random = np.random.default_rng(3)
    state = {"q.lora_A.weight": random.normal(size=(2, 20)).astype(np.float32)}
    state["q.lora_B.weight"] = random.normal(size=(30, 2)).astype(np.float32)
    manifest, side = manifest_of(state), SideAdapter(state, manifest_of(state))
    differences = [unflatten(random.normal(size=manifest.size).astype(np.float32), manifest) for _ in range(4)]
    for number, difference in enumerate(differences):
        side.add(difference, 1, f"site-{number}")
    mean = {name: np.mean([d[name] for d in differences], axis=0, dtype=np.float64) for name in state}
    found = side.result({name: tensor.astype(np.float32) for name, tensor in mean.items()})
    assert found["q.lora_side_A.weight"].shape[0] <= 8  # of three directions of two each, and rounding of the mean
    same = SideAdapter(state, manifest)
    for name in ("x", "y"):
        same.add(differences[0], 2, name)
    assert same.result(differences[0]) == {}
