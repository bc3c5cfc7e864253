"""Two small sites, and a deployment of them: one for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import Deployment
from tiny_federation import federate, tiny_config, write_small_sites

from fedrag.config.scenario import Config
from fedrag.types import State


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the data of the sites north and south."""
    return write_small_sites(tmp_path_factory.mktemp("data"), north=4, south=4)


@pytest.fixture(scope="module")
def deployment(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Run a coordinator and both sites, which measure nothing of what they get: they are free for the next run."""
    sites = {name: data / name for name in ("north", "south")}
    running = Deployment(tmp_path_factory.mktemp("deployment"), sites)
    for name in sites:
        running.set_setting(name, "adopt", "always")
        running.set_setting(name, "evaluate", False)
    with running:
        yield running


@pytest.fixture(scope="module")
def two_rounds(data: Path) -> Config:
    """Describe two rounds, each of which takes long enough to be hit in its middle."""
    return tiny_config(
        data,
        generator={"epochs": 80},
        federation={"rounds": 2, "deadline_s": 120.0, "quorum": 0.5, "greeting_timeout_s": 180.0},
    )


@pytest.fixture(scope="module")
def undisturbed(two_rounds: Config, tmp_path_factory: pytest.TempPathFactory) -> State:
    """Return what the same sites reach in one process."""
    state, _ = federate(two_rounds, tmp_path_factory.mktemp("undisturbed") / "run")
    return state
