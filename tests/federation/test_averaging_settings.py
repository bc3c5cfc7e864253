"""How averaging is chosen: by component, refused where it cannot work, and what the log recommends."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_federation import Lines, assert_same_state, federate, is_changed, tiny_config, with_faults, write_small_sites

from fedrag.components.state import initial_state
from fedrag.config.averaging import averaging_of
from fedrag.config.run_settings import FederationConfig
from fedrag.errors import ConfigError, QuorumError
from fedrag.federation.codec import decode, encode
from fedrag.federation.norm_limit import too_large
from fedrag.federation.rule_advice import rule_to_try
from fedrag.simulation.simulate import simulate


@pytest.fixture(scope="module")
def sites(tmp_path_factory, tiny_home):
    return write_small_sites(tmp_path_factory.mktemp("sites"), a=3, b=3, c=3, d=3)


def times(factor):
    """Let a site send its update so many times as large."""

    def fault(message, context, real):
        reply = real(message, context)
        for name, array in reply.content["update"].items():
            raw = array.numpy()
            flat = decode(raw, "float32", raw.size // 4) * np.float32(factor)
            reply.content["update"][name] = type(array)(encode(flat, "float32"))
        return reply

    return fault


CONTRADICTIONS = {
    "robust by counts": ({"robust": "clipping"}, 'needs federation.weighting = "equal": a bad site that claims many'),
    "robust products": (
        {"robust": "mixing", "weighting": "equal", "rule": "svd"},
        'for the generator set rule = "ffa" or "rolora"',
    ),
    "remembered factors": ({"rule": "svd", "server_optimizer": "adam"}, "set one of them alone"),
    "one round of rolora": ({"rule": "rolora", "rounds": 1}, "the generator needs at least 2 rounds"),
    "a component alone": (
        {"retriever": {"rule": "svd", "server_optimizer": "yogi"}},
        "for the retriever set one of them alone",
    ),
    "a rate that nothing uses": ({"server": {"learning_rate": 0.5}}, "needs a federation.server_optimizer"),
    "an own component": ({"components": ["reranker"], "rule": "ffa"}, "not those of the reranker"),
}


def test_sites_of_different_ranks_are_averaged_by_svd_alone():
    ranks = {"ranks": {"a": 1}}  # of adapters of rank 2
    for federation in ({"rule": "svd"}, {"schedule": "retriever", "retriever": {"rule": "svd"}}):
        tiny_config(federation=federation, simulation=ranks)
    tiny_config(simulation={"ranks": {"a": 2}})
    for federation in ({"rule": "ffa"}, {"rule": "svd", "retriever": {"rule": "fedavg"}}):
        with pytest.raises(ConfigError, match='adapters of rank 1, the others 2: federation.rule = "svd" alone'):
            tiny_config(federation=federation, simulation=ranks)


@pytest.mark.parametrize(
    ("settings", "rank", "most"),
    [
        ({"federation": {"rule": "svd"}}, 3, 2),
        ({"federation": {"schedule": "retriever"}, "retriever": {"weights": "full"}}, 1, 0),
    ],
)
def test_a_rank_that_no_adapter_has_is_refused(settings, rank, most):
    said = f"simulation.ranks gives a rank {rank}, but no adapter that is trained has over {most}"
    with pytest.raises(ConfigError, match=said):
        tiny_config(**settings, simulation={"ranks": {"a": rank}})


def test_a_rank_of_a_site_that_does_not_take_part_is_refused(sites, tmp_path):
    config = tiny_config(sites, federation={"rule": "svd"}, simulation={"ranks": {"a": 1, "z": 1}})
    with pytest.raises(ConfigError, match="simulation.ranks names z, but the sites that take part are a, b, c, d"):
        simulate(config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


SECURE = {
    "robust": ({"robust": "clipping", "weighting": "equal"}, 'federation.robust = "clipping" compares single updates'),
    "svd": ({"rule": "svd"}, 'federation.rule = "svd" adds up products of single updates; set "fedavg", "ffa" or'),
    "exact": ({"retriever": {"rule": "exact"}}, 'federation.rule = "exact" adds up products of single updates'),
    "int8": ({"wire": "int8"}, "a scale of its own, and such numbers do not add up"),
    "first replies": ({"fraction": 0.5, "overselect": 0.3}, "leaves sites out because they are late"),
    "median of norms": ({"max_norm_of_median": 4.0}, "compares the norms of single updates; set 0"),
    "ratio of counts": (
        {"max_weight_ratio": 3.0},
        "compares single counts; leave it out, and set federation.secure_max",
    ),
    "diagnosis": ({"diagnose": True}, "asks each site for counts of its own"),
}


@pytest.mark.parametrize("case", SECURE)
def test_what_needs_single_updates_or_counts_is_refused_beside_a_secure_sum(case):
    federation, reason = SECURE[case]
    tiny_config(federation=federation)
    with pytest.raises(ConfigError) as caught:
        tiny_config(federation=federation | {"secure": True})
    assert "federation.secure = true, but" in str(caught.value)
    assert reason in str(caught.value)


def test_a_rule_of_one_s_own_is_refused_beside_a_secure_sum(sites, tmp_path):
    with pytest.raises(ConfigError, match='own.rule = "median" is given single updates; leave it out'):
        tiny_config(federation={"secure": True}, own={"module": "mine", "rule": "median"})
    with pytest.raises(ConfigError, match="an aggregation rule of your own is given single updates"):
        federate(tiny_config(sites, federation={"secure": True}), tmp_path / "run", rule=lambda d, w: d[0])


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_what_cannot_work_together_is_refused_with_the_reason(case):
    federation, reason = CONTRADICTIONS[case]
    with pytest.raises(ConfigError) as caught:
        tiny_config(federation=federation)
    assert reason in str(caught.value)


def test_a_retriever_that_trains_all_weights_has_no_factors_to_average():
    with pytest.raises(ConfigError, match='set federation.retriever.rule = "fedavg"'):
        tiny_config(federation={"rule": "ffa"}, retriever={"weights": "full"})
    federation = {"rule": "ffa", "retriever": {"rule": "fedavg"}}
    config = tiny_config(federation=federation, retriever={"weights": "full"}).federation
    assert [averaging_of(config, name).rule for name in ("generator", "retriever")] == ["ffa", "fedavg"]


def test_each_component_has_its_rule_weights_limit_and_passes(sites, tmp_path):
    own = {"rule": "ffa", "max_update_norm": 1e-9}
    settings = {"rounds": 1, "weighting": "equal", "generator": own, "quorum": 0.1, "max_norm_of_median": 0.0}
    with pytest.raises(QuorumError, match="generator update has norm .* above the limit of 1e-09"):
        federate(tiny_config(sites, federation=settings), tmp_path / "strict")
    settings["generator"] = {"rule": "ffa"}
    config = tiny_config(sites, federation=settings, generator={"epochs": 3}, retriever={"epochs": 2})
    state, run = federate(config, tmp_path / "run")
    told = run.rounds()[0]["sites"]["a"]
    assert (told["generator.steps"], told["retriever.steps"]) == (3, 2)
    before = initial_state(config, ("generator", "retriever"))
    for component, moves in (("generator", False), ("retriever", True)):
        assert is_changed(state, before, component)
        moved = [n for n, t in state[component].items() if ".lora_A." in n and (t != before[component][n]).any()]
        assert bool(moved) == moves


def test_an_update_of_many_times_the_median_norm_is_left_out_and_named(sites, tmp_path):
    settings = {"rounds": 1, "schedule": "generator", "max_norm_of_median": 4.0}
    display = Lines()
    config = tiny_config(sites, federation=settings)
    state, run = federate(config, tmp_path / "run", app=with_faults({"b": times(-10)}), display=display)
    record = run.rounds()[0]
    assert list(record["left_out"]) == ["b"]
    assert "more than 4 times the median of the round" in record["left_out"]["b"]
    assert f"b is left out of round 1: {record['left_out']['b']}" in display.said
    assert list(record["sites"]) == ["a", "c", "d"]
    without = tiny_config(sites, data={"hold_out": ["b"]}, federation=settings)
    assert_same_state(state, federate(without, tmp_path / "without")[0])


def test_one_site_of_four_cannot_move_the_median_beyond_the_others():
    good = {"a": 1.0, "b": 1.2, "c": 1.4}
    for bad in (0.0, 1.3, 1e9):
        reasons = too_large({n: {"generator": s} for n, s in {**good, "d": bad}.items()}, 2.0)
        assert list(reasons) == (["d"] if bad > 100 else [])
    assert too_large({"a": {"generator": 0.0}, "b": {"generator": 0.0}}, 2.0) == {}


@pytest.mark.parametrize("robust", ["clipping", "geometric-median", "mixing"])
def test_a_bad_site_moves_real_rounds_less_than_it_moves_the_mean(robust, sites, tmp_path):
    settings = {"rounds": 1, "schedule": "generator", "weighting": "equal"}
    good, _ = federate(tiny_config(sites, data={"hold_out": ["b"]}, federation=settings), tmp_path / "good")

    def off(name, **more):
        config = tiny_config(sites, federation={**settings, **more})
        state, run = federate(config, tmp_path / name, app=with_faults({"b": times(-10)}))
        assert run.rounds()[0]["left_out"] == {}
        gaps = [np.square(t - good["generator"][n], dtype=np.float64).sum() for n, t in state["generator"].items()]
        return sum(gaps) ** 0.5

    assert off(robust, robust=robust) < 0.4 * off("mean")


@pytest.mark.parametrize("settings", [{"rule": "svd"}, {"robust": "mixing", "weighting": "equal"}])
def test_a_rule_of_one_s_own_beside_one_that_is_set_is_refused_before_anything_is_asked(settings, sites, tmp_path):
    config = tiny_config(sites, federation=settings)
    with pytest.raises(ConfigError, match="rule of your own takes the place of federation"):
        federate(config, tmp_path / "run", rule=lambda updates, weights: updates[0])
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_too_few_sites_for_the_bad_ones_that_are_feared_stop_the_round(sites, tmp_path):
    settings = {"rounds": 1, "schedule": "generator", "weighting": "equal", "robust": "mixing", "bad_sites": 2}
    with pytest.raises(QuorumError, match="4 sites gave an update of the generator: .* needs more than 4"):
        federate(tiny_config(sites, federation=settings), tmp_path / "run")


def test_the_log_says_once_which_rule_to_try(sites, tmp_path):
    display = Lines()
    settings = {"rounds": 3, "schedule": "generator"}
    config = tiny_config(sites, federation=settings, generator={"epochs": 6, "learning_rate": 0.05})
    _, run = federate(config, tmp_path / "run", display=display)
    assert [record["aggregation_error"]["generator"] > 0.03 for record in run.rounds()].count(True) > 1
    said = [line for line in display.said if "federation.generator.rule" in line]
    assert len(said) == 1
    assert 'off that of their products; try federation.generator.rule = "svd"' in said[0]


@pytest.mark.parametrize(
    ("settings", "error", "sites", "rule"),
    [
        ({}, 0.05, 4, "svd"),
        ({}, 0.05, 20, "rolora"),
        ({"rounds": 1}, 0.05, 20, "ffa"),
        ({"server_optimizer": "adam"}, 0.05, 4, "rolora"),
        ({"robust": "mixing", "weighting": "equal"}, 0.05, 4, "rolora"),
        ({}, 0.02, 4, ""),
        ({"rule": "svd"}, 0.5, 4, ""),
    ],
)
def test_the_rule_to_try_is_one_that_the_scenario_would_take(settings, error, sites, rule):
    said = rule_to_try(FederationConfig(**settings), "generator", error, sites)
    assert (f'rule = "{rule}"' in said) if rule else said == ""
    if rule:
        tiny_config(federation={**settings, "generator": {"rule": rule}})
