"""A whole simulation over Ray actors: the same numbers as in one process, whatever happens to an actor."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from fedrag_process import await_moment, started
from flwr.clientapp import ClientApp
from tiny_federation import (
    Lines,
    assert_same_state,
    client_folders,
    federate,
    node_configs,
    tiny_config,
    write_small_sites,
)

from fedrag.files import read_json
from fedrag.grids.ray_actors import RayGrid
from fedrag.grids.ray_pool import RayPool
from fedrag.models.generator import Generator
from fedrag.models.retriever import Retriever
from fedrag.simulation.simulate import resume, simulate
from fedrag.site.client_app import make_client_app
from fedrag.training.losses import Losses, answer_loss

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_home")]

ON_RAY = {"grid": "ray", "actors": 2, "threads": 1}


@pytest.fixture(scope="module", autouse=True)
def _threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sites(tmp_path_factory, tiny_home) -> Path:
    return write_small_sites(tmp_path_factory.mktemp("sites"), a=3, b=4, c=5)


def assert_same_run(run, expected):
    """Compare tensors and every number in the log that is not a time."""
    assert_same_state(run.load_result(), expected.load_result())
    for record, other in zip(run.rounds(), expected.rounds(), strict=True):
        assert without_times(record) == without_times(other)


def without_times(record):
    if isinstance(record, dict):
        return {key: without_times(value) for key, value in record.items() if key != "seconds"}
    return record


def test_both_grids_give_the_same_run_bit_for_bit(sites, tmp_path):
    settings = {
        "retriever": {"loss": "both", "lsr": {"candidates": 3}},
        "federation": {"rounds": 2, "keep": "best"},
        "evaluation": {"split": "test"},
    }
    on_ray = simulate(tiny_config(sites, **settings, simulation=ON_RAY), out=tmp_path / "ray")
    expected = simulate(tiny_config(sites, **settings), out=tmp_path / "in-process")
    assert on_ray.facts["threads"] == expected.facts["threads"] == 1
    assert_same_run(on_ray, expected)
    results, others = (read_json(run.path / "results.json") for run in (on_ray, expected))
    assert results["federated"] == others["federated"]
    for name in "abc":
        models = Path("sites", name, "models", "tiny", "retriever.safetensors")
        assert (on_ray.path / models).read_bytes() == (expected.path / models).read_bytes()


def half_loss(logits, labels):
    return answer_loss(logits, labels) / 2


def smallest_name(differences, weights):
    return differences[0]


def test_one_s_own_loss_and_rule_work_on_ray_too(sites, tmp_path):
    own = {"losses": Losses(answer=half_loss), "rule": smallest_name}
    settings = {"federation": {"rounds": 1, "schedule": "generator"}}
    on_ray = simulate(tiny_config(sites, **settings, simulation=ON_RAY), out=tmp_path / "ray", **own)
    expected = simulate(tiny_config(sites, **settings), out=tmp_path / "in-process", **own)
    plain = simulate(tiny_config(sites, **settings), out=tmp_path / "plain")
    assert_same_run(on_ray, expected)
    told, plainly = (run.rounds()[0]["sites"]["a"]["generator.loss"] for run in (on_ray, plain))
    assert told == pytest.approx(plainly / 2, rel=1e-3)


class CountedClients:
    """Builds the real client app, and has the process note each base model that it loads."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    def __call__(self) -> ClientApp:
        for kind in (Generator, Retriever):
            kind.load = partial(self.load, kind.load)
        return make_client_app()

    def load(self, load, fetched, *settings, **named):
        with self.notes.open("a") as file:
            file.write(f"{os.getpid()} {fetched.name}\n")
        return load(fetched, *settings, **named)


def test_an_actor_loads_each_base_model_once_however_many_clients_it_serves(tmp_path):
    sites = write_small_sites(tmp_path / "sites", a=2, b=2, c=2, d=2, e=2, f=2)
    config = tiny_config(sites, federation={"rounds": 2})
    clients = CountedClients(tmp_path / "loads")
    configs = node_configs(client_folders(config), tmp_path / "caches")
    with RayPool(len(configs), actors=2) as pool, RayGrid(clients, configs, pool) as grid:
        _, run = federate(config, tmp_path / "run", grid=lambda app, nodes: grid)
    assert [len(record["sites"]) for record in run.rounds()] == [6, 6]
    loads = clients.notes.read_text().splitlines()
    pids = {line.split()[0] for line in loads}
    assert len(pids) == 2
    assert sorted(loads) == sorted(f"{pid} fedrag/tiny-{kind}" for pid in pids for kind in ("causal", "encoder"))


def ray_actors() -> list[int]:
    """Return the process ids of the actors that are descendants of this process or were started by it."""
    found = []
    for name in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"ray::ClientActor" in name.read_bytes() and _belongs_to_us(int(name.parent.name)):
                found.append(int(name.parent.name))
        except (OSError, IndexError):  # it ended meanwhile
            continue
    return found


def _belongs_to_us(pid: int) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def test_an_actor_killed_in_a_round_costs_nothing(sites, tmp_path):
    """All sites are in every round, and the numbers are those of a run without trouble."""
    settings = {"generator": {"epochs": 40}, "federation": {"rounds": 3, "schedule": "generator"}}
    killed = []

    def kill_one_in_round_two():
        while not (tmp_path / "ray" / "rounds.jsonl").exists():
            time.sleep(0.02)
        time.sleep(0.1)
        killed.append(ray_actors()[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one_in_round_two, daemon=True)
    killer.start()
    display = Lines()
    on_ray = simulate(tiny_config(sites, **settings, simulation=ON_RAY), out=tmp_path / "ray", display=display)
    killer.join(timeout=10)
    assert killed
    assert not Path(f"/proc/{killed[0]}").exists()
    assert [list(record["sites"]) for record in on_ray.rounds()] == [["a", "b", "c"]] * 3
    assert_same_run(on_ray, simulate(tiny_config(sites, **settings), out=tmp_path / "in-process"))


def commands_of_session(session: int) -> list[str]:
    """Return the command lines of the processes of a session that still run."""
    listed = subprocess.run(["ps", "-s", str(session), "-o", "stat=,args="], capture_output=True, text=True)
    return [line for line in listed.stdout.splitlines() if not line.startswith("Z")]


@pytest.mark.faults
def test_ctrl_c_ends_the_actors_too_and_the_run_goes_on_in_either_grid(sites, tmp_path):
    """A terminal sends Ctrl-C to the whole process group."""
    settings = {"generator": {"epochs": 60}, "federation": {"rounds": 2, "schedule": "generator"}}
    config = tiny_config(sites, **settings, simulation=ON_RAY)
    (tmp_path / "tiny.toml").write_text(config.to_toml())
    run = tmp_path / "run"
    with started("simulate", tmp_path / "tiny.toml", "--out", run) as process:
        await_moment(process, (run / "rounds.jsonl").exists)
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=180)
    assert process.returncode == 130, err
    assert out.splitlines()[-1] == f"go on with: fedrag simulate --resume {run}"
    end = time.monotonic() + 90
    while left := commands_of_session(process.pid):  # Ray's own processes notice a little later
        assert time.monotonic() < end, left
        time.sleep(0.2)
    resume(run)
    expected = simulate(tiny_config(sites, **settings), out=tmp_path / "expected")
    assert (run / "final/state.safetensors").read_bytes() == (expected.path / "final/state.safetensors").read_bytes()
