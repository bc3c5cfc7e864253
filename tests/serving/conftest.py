"""A trained run of the tiny models, and a service of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clinic import trained_run
from served_site import Service, copied_site, serving

from fedrag.runs.run_folder import RunFolder


@pytest.fixture(scope="session")
def run(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained_run(tmp_path_factory.mktemp("serving") / "tiny-1")


@pytest.fixture(scope="module")
def service(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(run.path, copied_site(tmp_path_factory.mktemp("served"))) as service:
        yield service
