"""A disk that runs full while a run is on, at the coordinator and at a site: real file systems of a few megabytes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from deployment import Deployment
from tiny_federation import assert_same_state, federate, tiny_config

from fedrag.config.scenario import Config
from fedrag.types import State

pytestmark = [
    pytest.mark.faults,
    pytest.mark.usefixtures("tiny_home"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount the small file systems that it fills"),
]

NAMES = ("north", "south")
SIZE_MB = 8


@contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """Put a file system of a few megabytes in the place of an empty folder."""
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


@contextmanager
def full(path: Path) -> Iterator[None]:
    """Fill the file system that a folder lies on."""
    filler = path / ".filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture(scope="module")
def config(data) -> Config:
    return tiny_config(
        data,
        generator={"epochs": 40},
        federation={"rounds": 3, "deadline_s": 120.0, "quorum": 0.5, "min_sites": 2, "greeting_timeout_s": 60.0},
    )


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory) -> State:
    """The result of the same sites in one process."""
    state, _ = federate(config, tmp_path_factory.mktemp("undisturbed") / "run")
    return state


@pytest.fixture(scope="module")
def deployment(data, tmp_path_factory) -> Iterator[Deployment]:
    """A coordinator whose runs, and a site whose folder, lie on a small disk each."""
    root = tmp_path_factory.mktemp("deployment")
    with small_disk(root / "south"):
        deployed = Deployment(root, {name: data / name for name in NAMES})
        with small_disk(deployed.server.runs), deployed:
            yield deployed


def test_a_coordinator_whose_disk_is_full_says_so_once_and_goes_on_when_there_is_room(deployment, config, undisturbed):
    name = deployment.begin(config)
    deployment.wait_for_round(name, 1)
    with full(deployment.server.runs):
        deployment.wait(lambda: "the disk is full" in deployment.log("server"), 120, "the operator told")
        deployment.wait(lambda: not deployment.executor_pids(), 60, "no process tries in vain")
        deployment.wait_until_online(NAMES)
    assert_same_state(deployment.wait_until_done(name).load_result(), undisturbed)


def test_a_site_whose_disk_is_full_sends_nothing_and_takes_part_when_there_is_room(deployment, config, undisturbed):
    name = deployment.begin(config)
    deployment.wait_for_round(name, 1)
    with full(deployment.root / "south"):
        deployment.wait(lambda: "the disk is full" in deployment.node_log("south"), 120, "the administrator told")
    run = deployment.wait_until_done(name)
    assert all(sorted(line["sites"]) == list(NAMES) for line in run.rounds()), run.rounds()
    assert_same_state(run.load_result(), undisturbed)
