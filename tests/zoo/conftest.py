"""The store in which the models of the zoo are fetched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def _store(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("zoo-home")
    shutil.copytree(tiny_home / "models", home / "models", symlinks=True)
    return home


@pytest.fixture
def zoo_home(_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a FEDRAG_HOME with the tiny models and no other; loaded models are forgotten after each test."""
    monkeypatch.setenv("FEDRAG_HOME", str(_store))
    monkeypatch.setattr("fedrag.models.resident._RESIDENT", {})
    return _store
