"""`fedrag export`: whole models out of a run folder that holds what was trained."""

from __future__ import annotations

import errno
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
    code, printed, _ = export(run.path, "--out", out)
    assert code == 0
    assert printed.splitlines() == [
        f"generator: {out / 'generator'}",
        f"retriever: {out / 'retriever'}",
        f"model card: {out / 'README.md'}",
        f"prompt and search: {out / 'rag.json'}",
    ]
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "generator", "rag.json", "retriever"]
    assert (out / "generator" / "adapter_model.safetensors").is_file()
    retriever = RoundModels(run.config, run.load_result()).retriever
    encoder = SentenceTransformer(str(out / "retriever"), device="cpu")
    np.testing.assert_allclose(encoder.encode(TEXTS), retriever.encode_passages(TEXTS), atol=1e-5)
    untouched = RoundModels(run.config, {}).retriever.encode_passages(TEXTS)
    assert np.abs(encoder.encode(TEXTS) - untouched).max() > 1e-3


def test_a_run_folder_holds_no_file_as_large_as_the_encoder(run: RunFolder, tmp_path: Path) -> None:
    assert fedrag.export_run(run.path, tmp_path / "out") == [
        tmp_path / "out" / "generator",
        tmp_path / "out" / "retriever",
    ]
    encoder = (tmp_path / "out" / "retriever" / "model.safetensors").stat().st_size
    assert not (run.path / "final" / "retriever").exists()
    assert all(path.stat().st_size < encoder for path in run.path.rglob("*"))


def test_what_is_there_is_not_overwritten(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    code, printed, said = export(run.path, "--out", tmp_path / "out")
    assert (code, printed) == (2, "")
    assert said == f"Error: {tmp_path / 'out'}: exists already; choose another folder\n"
    assert list((tmp_path / "out").iterdir()) == []


def test_an_export_that_breaks_off_leaves_nothing(run: RunFolder, tmp_path: Path, monkeypatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fedrag.exporting.write_export.write_rag_file", full)
    code, _, said = export(run.path, "--out", tmp_path / "out")
    assert (code, said) == (
        2,
        f"Error: {tmp_path / 'out'}: cannot be written: the disk is full; free some space and resume\n",
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--gguf", "convert.py"],
            "--gguf convert.py: expected the path of convert_hf_to_gguf.py in a checkout of llama",
        ),
        (["--push", "a b"], '--push a b: expected a repository of the model hub, as "owner/name"'),
        (["--openai-jsonl", "--push", "a/b"], "--openai-jsonl and --push: the training set quotes the sites' data"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(run: RunFolder, tmp_path: Path, arguments, sentence) -> None:
    code, printed, said = export(run.path, "--out", tmp_path / "out", *arguments)
    assert (code, printed) == (2, "")
    assert said.startswith(f"Error: {sentence}")
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_not_finished_is_refused(run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "final")
    code, _, said = export(tmp_path / "run", "--out", tmp_path / "out")
    assert code == 2
    assert said.startswith(f"Error: {tmp_path / 'run'}: is not finished")
    assert not (tmp_path / "out").exists()
