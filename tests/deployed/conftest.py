"""Two small sites, and a deployment of them: one for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import Deployment
from tiny_federation import write_small_sites


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the data of the sites north and south."""
    return write_small_sites(tmp_path_factory.mktemp("data"), north=4, south=4)


@pytest.fixture(scope="module")
def deployment(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Run a coordinator and both sites."""
    sites = {name: data / name for name in ("north", "south")}
    with Deployment(tmp_path_factory.mktemp("deployment"), sites) as running:
        yield running
