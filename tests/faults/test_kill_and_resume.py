"""A process that is killed at any moment is resumed to the same result, bit for bit."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from fedrag_process import await_moment, run_to_its_end, started
from tiny_federation import tiny_config, write_small_sites

from fedrag.files import read_json
from fedrag.simulation.simulate import resume, simulate

pytestmark = pytest.mark.usefixtures("tiny_home")

# So that a round can be hit in its middle.
LONG_ROUNDS = {
    "generator": {"epochs": 30},
    "evaluation": {"split": "test", "baselines": ["local", "pooled"]},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_config(write_small_sites(tmp_path_factory.mktemp("data"), north=4, south=4), **LONG_ROUNDS)


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory, tiny_home):
    """The same scenario run without any trouble (in this process, and so quicker)."""
    return simulate(config, out=tmp_path_factory.mktemp("undisturbed") / "run")


@pytest.fixture
def scenario(config, tmp_path) -> Path:
    (tmp_path / "tiny.toml").write_text(config.to_toml())
    return tmp_path / "tiny.toml"


MOMENTS = {
    "in the training of round 2": lambda run: (run / "rounds.jsonl").exists() and not time.sleep(0.3),
    "while a checkpoint is written": lambda run: (run / "checkpoints" / ".round-0002.partial").exists(),
    "between checkpoint and log": lambda run: (run / "checkpoints" / "round-0001").exists(),
    "while the models are exported": lambda run: (run / "final" / ".generator.partial").exists(),
    "in the final evaluation": lambda run: (run / "evaluation" / "federated.json").exists(),
    "in a baseline": lambda run: (run / "baselines" / "local-north" / "rounds.jsonl").exists(),
    "in the pooled baseline": lambda run: (run / "baselines" / "pooled" / "rounds.jsonl").exists(),
}
CORE = "in the training of round 2"


@pytest.mark.parametrize(
    "moment", [pytest.param(m, marks=pytest.mark.slow if m == CORE else pytest.mark.faults) for m in MOMENTS]
)
def test_a_killed_run_ends_as_if_nothing_had_been(moment, scenario, undisturbed, tmp_path):
    run = tmp_path / "run"
    with started("simulate", scenario, "--out", run) as process:
        await_moment(process, lambda: MOMENTS[moment](run), every_s=0.001)  # some last a few milliseconds
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert not (run / "results.json").exists()
    if moment == CORE:
        assert len((run / "rounds.jsonl").read_text().splitlines()) == 1
        assert not (run / "checkpoints" / "round-0002").exists()
    code, out, err = run_to_its_end("simulate", "--resume", run)
    assert code == 0, err
    if moment == CORE:
        assert "going on after round 1" in out
    assert_as_undisturbed(run, undisturbed)


def assert_as_undisturbed(run, undisturbed):
    final = Path("final", "state.safetensors")
    assert (run / final).read_bytes() == (undisturbed.path / final).read_bytes()
    assert read_json(run / "results.json") == read_json(undisturbed.path / "results.json")
    for path in (undisturbed.path / "final").rglob("*.safetensors"):
        assert (run / path.relative_to(undisturbed.path)).read_bytes() == path.read_bytes()
    assert [record["round"] for record in undisturbed.rounds()] == [1, 2]
    assert not list(run.rglob("*.partial"))


@pytest.mark.faults
def test_a_run_killed_again_and_again_ends_as_if_nothing_had_been(scenario, undisturbed, tmp_path):
    run, chance = tmp_path / "run", random.Random(0)
    arguments = ["simulate", scenario, "--out", run]
    for _ in range(4):
        with started(*arguments) as process:
            await_moment(process, lambda: (run / "scenario.toml").exists())
            time.sleep(chance.uniform(0.0, 4.0))
            process.kill()
        arguments = ["simulate", "--resume", run]
    code, _, err = run_to_its_end(*arguments)
    assert code == 0, err
    assert_as_undisturbed(run, undisturbed)


@pytest.mark.slow
def test_ctrl_c_stops_with_exit_code_130_and_says_how_to_go_on(scenario, undisturbed, tmp_path):
    run = tmp_path / "run"
    with started("simulate", scenario, "--out", run) as process:
        await_moment(process, lambda: MOMENTS[CORE](run))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out.splitlines()[-1] == f"go on with: fedrag simulate --resume {run}"
    assert err.splitlines() == ["Stopped."]
    resume(run)
    assert_as_undisturbed(run, undisturbed)
