"""A store of one's own, to break things in, and passes beside one another."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fedrag.models import four_bits, tiny
from fedrag.models.fetch import fetch_models
from fedrag.models.store import model_folder


@pytest.fixture
def own_tiny_causal(tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the tiny generator into a FEDRAG_HOME of this test alone, and return its folder."""
    source = model_folder("fedrag/tiny-causal")
    monkeypatch.setenv("FEDRAG_HOME", str(tmp_path / "home"))
    target = model_folder("fedrag/tiny-causal")
    shutil.copytree(source, target)
    return target


@pytest.fixture
def prompted_encoder(tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Add to a store of this test alone the tiny encoder with prompts for queries and documents; return its name."""
    from sentence_transformers import SentenceTransformer

    folder = tmp_path / "prompted"
    encoder = SentenceTransformer(str(model_folder("fedrag/tiny-encoder")), device="cpu")
    encoder.prompts = {"query": "search for: ", "document": "passage: "}
    encoder.save(str(folder), create_model_card=False)
    shutil.copytree(tiny_home / "models", tmp_path / "home" / "models", symlinks=True)
    monkeypatch.setenv("FEDRAG_HOME", str(tmp_path / "home"))
    fetch_models([str(folder)], "path")
    return "prompted"


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Compute in two threads, so that two passes run beside one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def wide_home(tmp_path_factory: pytest.TempPathFactory, tiny_home: Path) -> Path:
    """Make a FEDRAG_HOME of tiny models of twice the width: their rows are whole blocks of 4 bits."""
    home = tmp_path_factory.mktemp("wide-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDRAG_HOME", str(home))
        patch.setattr(tiny, "DIM", four_bits.BLOCK)
        fetch_models(tuple(tiny.TINY_MODELS))
    return home
