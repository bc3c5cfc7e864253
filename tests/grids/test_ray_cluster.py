"""A Ray cluster of several nodes that was there before: clients run on all of them, and it stays when they are done."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray
import torch
from numpy_clients import ALL_SCALED, NODE_CONFIGS, build_app, messages, numbers_by_site
from ports import free_port
from ray_nodes import START_S, Node
from tiny_federation import assert_same_state, tiny_config, write_small_sites
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.errors import ConfigError
from fedrag.grids.ray_actors import RayGrid
from fedrag.grids.ray_pool import RayPool
from fedrag.simulation.simulate import simulate
from fedrag.training.losses import Losses, answer_loss

TINY = "simulations/scenarios/tiny.toml"


@pytest.fixture
def cluster() -> Iterator[tuple[str, Node]]:
    """Start a head and a second node, one CPU each; yield the address and the second."""
    address = f"127.0.0.1:{free_port()}"
    nodes = [Node("--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false")]
    try:
        await_nodes(address, 0)
        nodes.append(Node(f"--address={address}"))
        await_nodes(address, 2)
        yield address, nodes[1]
    finally:
        ray.shutdown()
        for node in reversed(nodes):
            node.kill()


def await_nodes(address: str, count: int) -> None:
    """Wait until the head answers, and then until it knows so many nodes."""
    host, _, port = address.partition(":")
    end = time.monotonic() + START_S
    while True:
        assert time.monotonic() < end, "the Ray nodes did not start"
        time.sleep(0.2)
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            continue
        if not count:
            return
        ray.init(address=address, log_to_driver=False)
        alive = sum(node["Alive"] for node in ray.nodes())
        ray.shutdown()
        if alive == count:
            return


def noting_loss(logits: torch.Tensor, labels: torch.Tensor, folder: Path) -> torch.Tensor:
    (folder / ray.get_runtime_context().get_node_id()).touch()
    return answer_loss(logits, labels)


@pytest.mark.slow
def test_a_simulation_runs_on_both_nodes_and_leaves_the_cluster_as_it_was(cluster, tmp_path, tiny_home):
    address, _ = cluster
    sites = write_small_sites(tmp_path / "sites", a=3, b=4, c=5, d=3)
    settings = {"federation": {"rounds": 2, "schedule": "generator"}}
    (tmp_path / "nodes").mkdir()
    threads = torch.get_num_threads()
    on_cluster = simulate(
        tiny_config(sites, **settings, simulation={"grid": "ray", "threads": 1}),
        out=tmp_path / "cluster",
        losses=Losses(answer=partial(noting_loss, folder=tmp_path / "nodes")),
        ray_address=address,
    )
    expected = simulate(tiny_config(sites, **settings), out=tmp_path / "here")
    torch.set_num_threads(threads)
    assert_same_state(on_cluster.load_result(), expected.load_result())
    assert not ray.is_initialized()
    ray.init(address=address, log_to_driver=False)
    assert {node["NodeID"] for node in ray.nodes() if node["Alive"]} == {p.name for p in (tmp_path / "nodes").iterdir()}


@pytest.mark.slow
def test_when_a_node_is_lost_the_others_answer_for_it(cluster):
    address, second = cluster
    with RayPool(len(NODE_CONFIGS), address=address) as pool, RayGrid(build_app, NODE_CONFIGS, pool) as grid:
        assert numbers_by_site(grid, grid.send_and_receive(messages(grid))) == ALL_SCALED
        second.kill()
        replies = grid.send_and_receive(messages(grid), timeout=120)
        assert numbers_by_site(grid, replies) == ALL_SCALED


def test_an_actor_is_not_split_over_nodes():
    """Two nodes of three CPUs have room for two actors of two CPUs, not for three."""
    from fedrag.grids.ray_pool import _room

    node = {"CPU": 3.0, "GPU": 2.0}
    assert _room(node, 2, 0.0) == 1
    assert _room(node, 1, 0.0) == 3
    assert _room(node, 1, 0.7) == 2
    assert _room(node, 1, 0.25) == 3
    assert _room({"memory": 1e9}, 1, 0.0) == 0


def test_an_address_where_no_cluster_answers_is_refused_at_once():
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"no Ray cluster answers at 127\.0\.0\.1:\d+ \(.*refused\)"):
        RayPool(len(NODE_CONFIGS), address=f"127.0.0.1:{free_port()}")
    with pytest.raises(ConfigError, match='"auto" is no address of a Ray cluster: expected HOST:PORT'):
        RayPool(len(NODE_CONFIGS), address="auto")
    assert time.monotonic() - started < 10


def test_the_command_tells_of_an_address_that_is_of_no_use(tiny_home, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    address = f"127.0.0.1:{free_port()}"
    given = ["simulate", TINY, "--out", str(tmp_path / "run"), "--ray-address", address]
    for more, said in (
        ([], 'Error: a Ray address needs simulation.grid = "ray"; this run has "in-process"'),
        (["--set", "simulation.grid=ray"], f"Error: no Ray cluster answers at {address} ("),
        (["--dry-run"], "Error: --dry-run looks at this machine alone; leave out --ray-address"),
    ):
        result = CliRunner().invoke(app, [*given, *more])
        assert result.exit_code == 2
        assert result.stderr.startswith(said)
        assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
