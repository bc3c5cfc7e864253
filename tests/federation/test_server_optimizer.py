"""The server's optimizers against arithmetic on single numbers, and through a whole run that is killed."""

from __future__ import annotations

import json
import math
import signal

import numpy as np
import pytest
from fedrag_process import await_moment, run_to_its_end, started
from tiny_federation import assert_same_state, federate, tiny_config, write_small_sites

from fedrag.config.averaging_settings import ServerStepConfig
from fedrag.federation.server_optimizer import Memory, server_step
from fedrag.runs.run_folder import RunFolder

OPTIMIZERS = ("momentum", "adam", "yogi", "adagrad")
SETTINGS = ServerStepConfig(learning_rate=0.3, momentum=0.8, beta2=0.95, tau=0.01)


def by_hand(optimizer, x, differences):
    """Follow one number through the rounds, as the papers write the steps."""
    m, v = 0.0, 0.01**2
    for d in differences:
        if optimizer == "momentum":
            m = 0.8 * m + d
            x += 0.3 * m
            continue
        m = d if optimizer == "adagrad" else 0.8 * m + 0.2 * d
        if optimizer == "adagrad":
            v += d * d
        elif optimizer == "adam":
            v = 0.95 * v + 0.05 * d * d
        else:
            v -= 0.05 * d * d * math.copysign(1.0, v - d * d)
        x += 0.3 * m / (math.sqrt(v) + 0.01)
    return x, m, v


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_five_rounds_are_those_of_the_paper_number_by_number(optimizer):
    random = np.random.default_rng(3)
    start = {"b": random.normal(0, 1, (3, 2)).astype(np.float32), "a": random.normal(0, 1, 4).astype(np.float32)}
    rounds = [{n: random.normal(0, 0.03, t.shape).astype(np.float32) for n, t in start.items()} for _ in range(5)]
    state, memory = start, Memory()
    for difference in rounds:
        state, memory = server_step(state, difference, optimizer, SETTINGS, memory)
    assert list(state) == ["b", "a"]
    for name, tensor in start.items():
        for place in np.ndindex(tensor.shape):
            x, m, v = by_hand(optimizer, float(tensor[place]), [float(d[name][place]) for d in rounds])
            assert state[name][place] == pytest.approx(x, rel=1e-5, abs=1e-6)
            assert memory.momentum[name][place] == pytest.approx(m, rel=1e-5, abs=1e-8)
            if optimizer != "momentum":
                assert memory.variance[name][place] == pytest.approx(v, rel=1e-5)


def test_the_differences_move_every_optimizer_another_way():
    start, difference = {"w": np.ones(2, np.float32)}, {"w": np.array([0.5, -0.01], np.float32)}
    second = {"w": np.array([0.1, 0.2], np.float32)}
    ends = set()
    for optimizer in OPTIMIZERS:
        state, memory = server_step(start, difference, optimizer, SETTINGS, Memory())
        ends.add(server_step(state, second, optimizer, SETTINGS, memory)[0]["w"].tobytes())
    assert len(ends) == 4


def test_momentum_without_memory_at_rate_one_is_plain_averaging():
    start, difference = {"w": np.array([1.0, 2.0], np.float32)}, {"w": np.array([0.25, -0.5], np.float32)}
    plain = ServerStepConfig(momentum=0.0)
    assert server_step(start, difference, "momentum", plain, Memory())[0]["w"].tolist() == [1.25, 1.5]


def test_a_tensor_that_nobody_trained_stays_whatever_is_remembered_of_it():
    start = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    change = np.full(2, 0.5, np.float32)
    state, memory = server_step(start, {"a": change, "b": change}, "adam", SETTINGS, Memory())
    later, kept = server_step(state, {"a": change}, "adam", SETTINGS, memory)
    assert later["b"].tobytes() == state["b"].tobytes()
    assert kept.momentum["b"].tobytes() == memory.momentum["b"].tobytes()
    assert (later["a"] != state["a"]).all()


# In a run: the optimizer's memory belongs to the checkpoint.


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_home):
    sites = write_small_sites(tmp_path_factory.mktemp("sites"), a=3, b=4)
    server = {"server_optimizer": "yogi", "retriever": {"server_optimizer": "momentum"}}
    return tiny_config(sites, federation={"rounds": 3, **server}, generator={"epochs": 4})


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    return federate(config, tmp_path_factory.mktemp("undisturbed") / "run")


def stopped_after_round_two(config, path):
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 3:  # called before the first round, too
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federate(config, path, on_round=stop)
    return RunFolder.open(path)


def test_each_component_has_its_optimizer_and_its_memory(config, undisturbed):
    state, run = undisturbed
    plain, _ = federate(tiny_config(config.data.sites, federation={"rounds": 1}), run.path.parent / "plain")
    checkpoint, _ = run.load_checkpoint()
    assert list(checkpoint.momentum) == ["generator", "retriever"]
    assert list(checkpoint.variance["generator"]) == list(state["generator"])
    assert list(checkpoint.variance) == ["generator"]
    assert any((plain["generator"][n] != t).any() for n, t in state["generator"].items())


def test_a_run_stopped_in_the_middle_goes_on_with_the_optimizer_s_memory(config, undisturbed, tmp_path):
    run = stopped_after_round_two(config, tmp_path / "run")
    assert run.load_checkpoint()[0].round_number == 2
    state, _ = federate(config, tmp_path / "run")
    assert_same_state(state, undisturbed[0])


@pytest.mark.slow
def test_a_killed_run_is_resumed_to_the_same_bytes(config, tmp_path, tiny_home):
    (tmp_path / "tiny.toml").write_text(config.to_toml())
    for name in ("whole", "killed"):
        with started("simulate", tmp_path / "tiny.toml", "--out", tmp_path / name) as process:
            if name == "killed":
                await_moment(process, lambda: (tmp_path / "killed" / "checkpoints" / "round-0002").exists())
                process.kill()
                assert process.wait() == -signal.SIGKILL
            else:
                assert process.wait() == 0
    assert not (tmp_path / "killed" / "final" / "state.safetensors").exists()
    code, out, err = run_to_its_end("simulate", "--resume", tmp_path / "killed")
    assert code == 0, err
    assert "going on after round 2" in out
    for path in ("final/state.safetensors", "checkpoints/round-0003/state.safetensors"):
        assert (tmp_path / "killed" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


def test_a_run_that_lost_the_memory_would_end_elsewhere(config, undisturbed, tmp_path):
    """A checkpoint of an older version holds no memory: it is read, and gives other bits than those above."""
    run = stopped_after_round_two(config, tmp_path / "run")
    checkpoint, _ = run.load_checkpoint()
    record = run.rounds()[-1]
    without = type(checkpoint)(2, checkpoint.state, checkpoint.best, checkpoint.best_scores)
    run.save_checkpoint(without, record)
    facts = json.loads((run.path / "checkpoints" / "round-0002" / "state.json").read_text())
    assert facts["format"] == 2
    read, warnings = run.load_checkpoint()
    assert (warnings, read.momentum, read.variance) == ([], {}, {})
    state, _ = federate(config, tmp_path / "run")
    assert any((undisturbed[0]["generator"][n] != t).any() for n, t in state["generator"].items())
