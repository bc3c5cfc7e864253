"""Fixtures that several folders share."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pytest

from fedrag.errors import ModelError
from fedrag.types import Tensors
from fedrag.weights.store import FetchedModel, fetched_models, find_model

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from fedrag.models.generator import Generator
    from fedrag.models.retriever import Retriever

# Before torch is imported: threads that wait for each other cost the tiny models more than they save.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# An example that takes long on a busy machine is no fault.
hypothesis.settings.register_profile("without deadline", deadline=None)
hypothesis.settings.load_profile("without deadline")

LONG_FILES = (
    *("tests/cli/test_readme_commands_run.py", "tests/zoo/", "tests/acceptance/test_real_models.py"),
    *("tests/attack/test_fuzzed_messages.py", "tests/attack/test_invented_messages.py"),
    *("tests/deployed/test_readme_deployment.py", "tests/deployed/test_deployed_secure_sum.py"),
    *("tests/deployed/test_killed_processes.py", "tests/deployed/test_deployment.py"),
    *("tests/deployed/test_bad_sites.py", "tests/faults/"),
)
"""Begun first: two workers that each take a file at a time then end together."""

REAL_MODELS = ("HuggingFaceTB/SmolLM2-135M-Instruct", "sentence-transformers/all-MiniLM-L6-v2")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG_FILES))


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a session's own FEDRAG_HOME, in which the random tiny models are fetched."""
    from fedrag.weights.fetch import fetch_models
    from fedrag.weights.tiny import TINY_MODELS

    home = tmp_path_factory.mktemp("fedrag-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDRAG_HOME", str(home))
        fetch_models(tuple(TINY_MODELS))
        yield home


@pytest.fixture
def own_home(tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a FEDRAG_HOME of the test's own, with the tiny models alone: it may add models to it, or damage them."""
    home = tmp_path / "home"
    for folder in (tiny_home / "models").glob("fedrag--tiny-*"):
        shutil.copytree(folder, home / "models" / folder.name)
    monkeypatch.setenv("FEDRAG_HOME", str(home))
    monkeypatch.setattr("fedrag.models.resident._RESIDENT", {})
    return home


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


@pytest.fixture
def load_generator(tiny_home: Path) -> Callable[..., Generator]:
    """Return a function that loads a tiny generator anew, its adapter random: nothing is zero by chance."""
    import torch

    from fedrag.config.training_settings import LoraSection
    from fedrag.models.generator import Generator

    def load(
        kind: str = "causal",
        dtype: torch.dtype = torch.float32,
        chat: bool = True,
        prefix_bytes: float | None = None,
        device: str = "cpu",
        **lora: Any,
    ) -> Generator:
        settings = LoraSection.model_validate({"rank": 4, "alpha": 8.0} | lora)
        generator = Generator.load(find_model(f"fedrag/tiny-{kind}"), settings, dtype, device)
        if prefix_bytes is not None:
            generator.prefix_bytes = prefix_bytes
        generator.set_adapter(random_tensors(generator.parameters()))
        if not chat:
            generator.tokenizer.chat_template = None
        return generator

    return load


@pytest.fixture
def load_retriever(tiny_home: Path) -> Callable[..., Retriever]:
    """Return a function that loads the tiny retriever anew, untouched and without dropout."""
    import torch

    from fedrag.config.training_settings import RetrieverConfig
    from fedrag.models.retriever import Retriever

    def load(
        name: str = "fedrag/tiny-encoder", device: str = "cpu", chunk_tokens: int = 0, **settings: Any
    ) -> Retriever:
        config = RetrieverConfig.model_validate({"lora": {"rank": 4, "alpha": 8.0}} | settings)
        retriever = Retriever.load(find_model(name), config, device, chunk_tokens=chunk_tokens)
        for module in retriever.encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return retriever

    return load


@pytest.fixture
def own_tiny_causal(tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the tiny generator into a FEDRAG_HOME of this test alone, and return its folder."""
    from fedrag.weights.store import model_folder

    source = model_folder("fedrag/tiny-causal")
    monkeypatch.setenv("FEDRAG_HOME", str(tmp_path / "home"))
    target = model_folder("fedrag/tiny-causal")
    shutil.copytree(source, target)
    return target


@pytest.fixture
def prompted_encoder(made_encoder: Callable[..., str]) -> str:
    """Add to a store of this test alone the tiny encoder with prompts for queries and documents; return its name."""
    return made_encoder("prompted", prompts={"query": "search for: ", "document": "passage: "})


@pytest.fixture
def made_encoder(own_home: Path, tmp_path: Path) -> Callable[..., str]:
    """Return a function that adds the tiny encoder, changed, to a store of this test alone, and returns its name."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    from fedrag.weights.fetch import fetch_models
    from fedrag.weights.store import model_folder

    def make(
        name: str,
        prompts: dict[str, str] | None = None,
        similarity: str | None = None,
        normalise: bool = True,
        shift: float = 0.0,
    ) -> str:
        """Make an encoder.

        Args:
            name: Its name.
            prompts: Its prompts by name, as they stand in its file.
            similarity: Its similarity function; None: its file names none.
            normalise: Whether it has a module that gives its vectors unit length.
            shift: What is added to each dimension of a vector: it brings all vectors close to one another.
        """
        encoder = SentenceTransformer(str(model_folder("fedrag/tiny-encoder")), device="cpu")
        last = encoder.pop(2)
        encoder.similarity_fn_name = similarity
        if shift:
            dim = encoder.get_embedding_dimension()
            encoder.append(Dense(dim, dim, True, torch.nn.Identity(), torch.eye(dim), torch.full((dim,), shift)))
        if normalise:
            encoder.append(last)
        folder = tmp_path / name
        encoder.save(str(folder), create_model_card=False)
        settings = json.loads((folder / "config_sentence_transformers.json").read_text())
        settings |= {"prompts": prompts or {}, "similarity_fn_name": similarity}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
        fetch_models([str(folder)], "path")
        return name

    return make


@pytest.fixture(autouse=True)
def _one_thread_is_left() -> Iterator[None]:
    """Let no test compute in more threads because one before it did."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """Compute on one CPU, in one thread: a second costs the tiny models ten times what it saves them."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Compute in two threads, so that two passes run beside one another."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def wide_home(tmp_path_factory: pytest.TempPathFactory, tiny_home: Path) -> Path:
    """Make a FEDRAG_HOME of tiny models of twice the width: their rows are whole blocks of 4 bits."""
    from fedrag.models import four_bits
    from fedrag.weights import tiny
    from fedrag.weights.fetch import fetch_models

    home = tmp_path_factory.mktemp("wide-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDRAG_HOME", str(home))
        patch.setattr(tiny, "DIM", four_bits.BLOCK)
        fetch_models(tuple(tiny.TINY_MODELS))
    return home


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for a module that is marked `needs_chromium`."""
    from chromium import launched

    with launched() as browser:
        yield browser


def random_tensors(like: Any, seed: int = 0, scale: float = 0.1) -> Tensors:
    """Return normal float32 tensors with the names and shapes of others."""
    rng = np.random.default_rng(seed)
    return {name: (scale * rng.standard_normal(tuple(t.shape))).astype(np.float32) for name, t in like.items()}


@pytest.fixture(name="random_tensors")
def _random_tensors() -> Callable[..., Tensors]:
    return random_tensors
