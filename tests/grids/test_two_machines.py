"""Two nodes of a Ray cluster that share no network but a cable, which is pulled in the middle of a round."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray_nodes import START_S, Node
from tiny_federation import assert_same_state, tiny_config, write_small_sites

from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import simulate

HERE, THERE = "10.213.77.1", "10.213.77.2"
PORT = 6379
TESTS = Path(__file__).parents[1]
# A node that does not answer is given up after some three seconds, by default after half a minute.
IMPATIENT = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


def can_make_networks() -> bool:
    """Try it: root of a container may lack the right."""
    if not shutil.which("ip"):
        return False
    name = f"fedrag-{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return made


pytestmark = pytest.mark.skipif(
    not can_make_networks(), reason="only root can make networks, with the command ip, and in few containers"
)


class Cable:
    """Two network namespaces with one link between them."""

    def __init__(self) -> None:
        self.here, self.there = (f"fedrag-{os.getpid()}-{end}" for end in "ab")
        self._near, self._far = (f"fr{os.getpid() % 100_000}{end}" for end in "ab")

    def lay(self) -> None:
        for name in (self.here, self.there):
            ip(f"netns add {name}")
        ip(f"link add {self._near} netns {self.here} type veth peer name {self._far} netns {self.there}")
        for name, link, address in ((self.here, self._near, HERE), (self.there, self._far, THERE)):
            ip(f"-n {name} address add {address}/24 dev {link}")
            ip(f"-n {name} link set {link} up")
            ip(f"-n {name} link set lo up")

    def pull(self) -> None:
        ip(f"-n {self.there} link set {self._far} down")

    def remove(self) -> None:
        for name in (self.here, self.there):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)


def within(network: str) -> list[str]:
    return ["ip", "netns", "exec", network]


def wait_for(is_so: Callable[[], bool], what: str, timeout_s: float = START_S) -> None:
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.1)


@pytest.fixture
def cable() -> Iterator[Cable]:
    """Start a head here and a node there, one CPU each; yield the link between them."""
    link, nodes = Cable(), []
    try:
        link.lay()
        head = ["--head", f"--port={PORT}", f"--node-ip-address={HERE}", "--include-dashboard=false"]
        nodes.append(Node(*head, within=within(link.here), environment=IMPATIENT))
        answers = [
            *within(link.here),
            sys.executable,
            "-c",
            f"import socket; socket.create_connection(('{HERE}', {PORT}), 1)",
        ]
        wait_for(lambda: not subprocess.run(answers, capture_output=True).returncode, "the head did not start")
        joins = [f"--address={HERE}:{PORT}", f"--node-ip-address={THERE}"]
        nodes.append(Node(*joins, within=within(link.there), environment=IMPATIENT))
        yield link
    finally:
        for node in reversed(nodes):
            node.kill()
        link.remove()


@pytest.mark.slow
def test_a_round_completes_though_its_other_machine_is_cut_off(cable: Cable, tmp_path: Path, tiny_home: Path):
    sites = write_small_sites(tmp_path / "sites", a=3, b=4, c=5, d=3)
    notes = tmp_path / "notes"
    notes.mkdir()
    run = subprocess.Popen(
        [*within(cable.here), sys.executable, str(Path(__file__).with_name("slow_simulation.py"))]
        + [f"{HERE}:{PORT}", str(sites), str(tmp_path / "run"), str(notes)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [TESTS, TESTS / "grids", *sys.path]))},
    )
    try:
        own = tmp_path / "own-node"
        wait_for(
            lambda: own.exists() and any(note.name != own.read_text() for note in notes.iterdir()), "none works there"
        )
        cable.pull()
        said, _ = run.communicate(timeout=240)
    finally:
        run.kill()
    assert run.returncode == 0, said
    assert "client process lost; it is asked once more" in said
    settings = {"federation": {"rounds": 2, "schedule": "generator"}}
    expected = simulate(tiny_config(sites, **settings), out=tmp_path / "here")
    assert_same_state(RunFolder.open(tmp_path / "run").load_result(), expected.load_result())
