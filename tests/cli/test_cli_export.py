"""`fedrag export`: whole models out of a run folder that holds what was trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tiny_federation import SHIPPED, tiny_config
from typer.testing import CliRunner

import fedrag
from fedrag.cli.main import app
from fedrag.models.resident import RoundModels
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import simulate

TEXTS = ["What does a late book cost?", "The crossing takes forty minutes."]


@pytest.fixture(scope="module")
def run(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Make a run that trained both components, the retriever on both sides."""
    settings = {"federation": {"rounds": 1}, "retriever": {"learning_rate": 1e-2}}
    return simulate(tiny_config(SHIPPED / "north", **settings), out=tmp_path_factory.mktemp("export") / "run")


def export(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_models_are_written_whole_and_compute_as_the_run_s_do(run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, printed, _ = export(run.path, out)
    assert code == 0
    assert {line.partition(":")[0] for line in printed.splitlines()} == {"generator", "retriever"}
    assert sorted(path.name for path in out.iterdir()) == ["generator", "retriever"]
    assert (out / "generator" / "adapter_model.safetensors").is_file()
    retriever = RoundModels(run.config, run.load_result()).retriever
    encoder = SentenceTransformer(str(out / "retriever"), device="cpu")
    np.testing.assert_allclose(encoder.encode(TEXTS), retriever.encode_passages(TEXTS), atol=1e-5)
    untouched = RoundModels(run.config, {}).retriever.encode_passages(TEXTS)
    assert np.abs(encoder.encode(TEXTS) - untouched).max() > 1e-3


def test_a_run_folder_holds_no_file_as_large_as_the_encoder(run: RunFolder, tmp_path: Path) -> None:
    fedrag.export_run(run.path, tmp_path)
    encoder = (tmp_path / "retriever" / "model.safetensors").stat().st_size
    assert not (run.path / "final" / "retriever").exists()
    assert all(path.stat().st_size < encoder for path in run.path.rglob("*"))


def test_what_is_there_is_not_overwritten(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "retriever").mkdir()
    code, printed, said = export(run.path, tmp_path)
    assert (code, printed) == (2, "")
    assert said == f"Error: {tmp_path / 'retriever'}: exists already; choose another folder\n"
    assert not (tmp_path / "generator").exists()


def test_a_run_that_is_not_finished_is_refused(run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "final")
    code, _, said = export(tmp_path / "run", tmp_path / "out")
    assert code == 2
    assert said.startswith(f"Error: {tmp_path / 'run'}: is not finished")
    assert not (tmp_path / "out").exists()
