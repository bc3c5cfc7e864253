"""The scenarios for models that anyone can fetch run with small random models of the same architectures and names."""

from __future__ import annotations

import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from architectures import CAUSAL, ENCODERS, SEQ2SEQ, Architecture
from building import build_encoder, build_generator
from life import two_sites
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.config.inputs import ModelsConfig
from fedrag.runs.run_folder import RunFolder
from fedrag.weights.fetch import fetch_models

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[2]
# Rows of whole blocks of 4 bits.
SIZES = {"hidden_size": 64, "intermediate_size": 64, "head_dim": 16, "sliding_window": None}
MODELS = {
    "gpt2": (CAUSAL["gpt2"], "gpt2", "causal"),
    "t5": (SEQ2SEQ["t5"], "t5", "seq2seq"),
    "mistral-qlora": (Architecture("pieces", SIZES, chat=True), "mistral", "causal"),
    "languages": (Architecture("pieces", SIZES, chat=True), "llama", "causal"),
}


@pytest.mark.parametrize("name", ["gpt2", "t5", "languages"])
def test_a_scenario_runs_with_a_small_model_under_its_models_name(name: str, tmp_path: Path, monkeypatch) -> None:
    run_shortened(name, tmp_path, monkeypatch)


def test_a_scenario_runs_in_4_bits_where_these_are_installed(tmp_path: Path, monkeypatch) -> None:
    run_shortened("mistral-qlora", tmp_path, monkeypatch)


def run_shortened(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a scenario on two small sites, with a small random model under the name of its own."""
    monkeypatch.chdir(CHECKOUT)
    monkeypatch.setenv("FEDRAG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("fedrag.models.resident._RESIDENT", {})
    scenario = CHECKOUT / "simulations" / "scenarios" / f"{name}.toml"
    settings = tomllib.loads(scenario.read_text(encoding="utf-8"))
    architecture, kind_of_model, kind = MODELS[name]
    named = ModelsConfig(**settings["models"])
    generator = build_generator(kind_of_model, architecture, tmp_path / "generator", kind)
    encoder = build_encoder("bert", ENCODERS["bert"], tmp_path / "encoder")
    fetch_models([str(generator)], "path", save_as=named.generator)
    fetch_models([str(encoder)], "path", save_as=named.retriever)
    two_sites(tmp_path / "sites")
    shorter = [f"data.sites={tmp_path / 'sites'}", "rag.prompt_tokens=384", "simulation.threads=1"]
    if settings["models"].get("generator_dtype") == "nf4" and find_spec("bitsandbytes") is None:
        shorter.append("models.generator_dtype=auto")  # continuous integration installs it and runs this test again
    arguments = ["simulate", str(scenario), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [*arguments, *(part for one in shorter for part in ("--set", one))])
    assert result.exit_code == 0, result.output
    assert set(RunFolder.open(tmp_path / "run").results()) >= {"untouched", "federated"}
