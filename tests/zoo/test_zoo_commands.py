"""Models of the zoo by the commands that a person types: fetched, checked, simulated to the table, exported."""

from __future__ import annotations

from pathlib import Path

import pytest
from architectures import CAUSAL, ENCODERS, SEQ2SEQ
from building import build_encoder, build_generator
from life import two_sites
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.runs.run_folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("zoo_home")]

SCENARIO = """
name = "zoo"
models = {{generator = "{generator}", retriever = "{encoder}"}}
data.sites = "sites"
rag = {{passages = 2, prompt_tokens = 192, answer_tokens = 4}}
federation = {{rounds = 1, schedule = "joint"}}
retriever.loss = "both"
retriever.lsr = {{candidates = 3, side = "both"}}
simulation.threads = 1
"""


def fedrag(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(("kind", "generator", "encoder"), [("causal", "mamba", "xlnet"), ("seq2seq", "bart", "gte")])
def test_a_simulation_trains_measures_and_exports(tmp_path: Path, monkeypatch, kind, generator, encoder):
    monkeypatch.chdir(tmp_path)
    table = CAUSAL if kind == "causal" else SEQ2SEQ
    build_generator(generator, table[generator], tmp_path / generator, kind)
    build_encoder(encoder, ENCODERS[encoder], tmp_path / encoder).rename(tmp_path / f"{encoder}-encoder")
    two_sites(tmp_path / "sites")
    for name in (generator, f"{encoder}-encoder"):
        fedrag("models", "fetch", name, "--source", "path", "--force")
    Path("zoo.toml").write_text(SCENARIO.format(generator=generator, encoder=f"{encoder}-encoder"))
    lines = fedrag("models", "check", generator, "--scenario", "zoo.toml").splitlines()
    assert all(line.startswith("ok     ") for line in lines)
    fedrag("simulate", "zoo.toml", "--out", "run")
    assert set(RunFolder.open(Path("run")).results()) >= {"untouched", "federated"}
    fedrag("export", "run", "--out", "exported")
    assert {path.name for path in Path("exported").iterdir()} == {"generator", "retriever", "README.md", "rag.json"}


def test_a_model_that_cannot_work_is_told_and_the_command_fails(tmp_path: Path):
    folder = build_generator("gpt2", CAUSAL["gpt2"], tmp_path / "short-gpt2")
    fedrag("models", "fetch", str(folder))
    result = CliRunner().invoke(app, ["models", "check", "short-gpt2"])
    assert result.exit_code == 2
    assert result.stdout == (
        "WRONG  settings: rag.prompt_tokens = 1024 and rag.answer_tokens = 32 are more than the 512 tokens that "
        "short-gpt2 reads; lower them\n"
    )
