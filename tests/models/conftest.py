"""A store of one's own, to break things in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fedrag.models.store import model_folder


@pytest.fixture
def own_tiny_causal(tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the tiny generator into a FEDRAG_HOME of this test alone, and return its folder."""
    source = model_folder("fedrag/tiny-causal")
    monkeypatch.setenv("FEDRAG_HOME", str(tmp_path / "home"))
    target = model_folder("fedrag/tiny-causal")
    shutil.copytree(source, target)
    return target
