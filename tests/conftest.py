"""Fixtures that several folders share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedrag.errors import ModelError
from fedrag.models.store import FetchedModel, fetched_models, find_model

# Before torch is imported: threads that wait for each other cost the tiny models more than they save.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REAL_MODELS = ("HuggingFaceTB/SmolLM2-135M-Instruct", "sentence-transformers/all-MiniLM-L6-v2")


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a session's own FEDRAG_HOME, in which the random tiny models are fetched."""
    from fedrag.models.fetch import fetch_models
    from fedrag.models.tiny import TINY_MODELS

    home = tmp_path_factory.mktemp("fedrag-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDRAG_HOME", str(home))
        fetch_models(tuple(TINY_MODELS))
        yield home


@pytest.fixture(scope="session")
def real_models(users_models: dict[str, FetchedModel], tiny_home: Path) -> Path:
    """Let the session's FEDRAG_HOME hold the user's real models too; fail where they are not fetched."""
    missing = [name for name in REAL_MODELS if name not in users_models]
    if missing:
        pytest.fail(f"{missing[0]} is not fetched; run: fedrag models fetch")
    for name in REAL_MODELS:
        folder = users_models[name].folder
        (tiny_home / "models" / folder.name).symlink_to(folder, target_is_directory=True)
        find_model(name)
    return tiny_home


@pytest.fixture(scope="session", autouse=True)
def users_models() -> dict[str, FetchedModel]:
    """Remember the models of the user's own FEDRAG_HOME, before a test sets another."""
    try:
        return {model.name: model for model in fetched_models()}
    except ModelError:
        return {}
