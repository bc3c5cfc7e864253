"""The one driver of a run."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_federation import assert_same_state, client_folders, node_configs, tiny_config, write_small_sites

from fedrag.components.shipped import SHIPPED
from fedrag.federation.federate import federate
from fedrag.grids.in_process import InProcessGrid
from fedrag.runs.run_folder import RunFolder
from fedrag.site.client_app import make_client_app

pytestmark = pytest.mark.usefixtures("tiny_home")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    sites = write_small_sites(tmp_path / "data", a=2, b=2)
    config = tiny_config(sites, federation={"rounds": 1, "schedule": "retriever"})
    return RunFolder.create(config, tmp_path / "run")


@contextmanager
def opened(run: RunFolder, events: list[str]):
    events.append("open")
    yield InProcessGrid(make_client_app(), node_configs(client_folders(run.config), run.path / "sites"))
    events.append("closed")


def test_the_grid_is_closed_before_what_is_exported_and_the_result_is_kept_after_it(run):
    events: list[str] = []
    steps = SHIPPED["retriever"].steps()

    def export(config, tensors, folder):
        events.append("kept" if run.is_finished else "export")
        steps.export(config, tensors, folder)

    own = replace(steps, export=export, export_copies_base=False)
    noting = replace(SHIPPED["retriever"], steps=lambda: own)
    state = federate(run, lambda: opened(run, events), components={**SHIPPED, "retriever": noting})
    assert events == ["open", "closed", "export"]
    assert_same_state(run.load_result(), state)


def test_a_run_keeps_what_was_trained_and_no_copy_of_the_base_model(run):
    """Once every run, and every baseline of it, kept a merged copy of the encoder: 470 MB for a multilingual one."""
    state = federate(run, lambda: opened(run, []))
    assert [path.name for path in (run.path / "final").iterdir()] == ["state.safetensors"]
    trained = sum(tensor.nbytes for tensor in state["retriever"].values())
    assert trained < (run.path / "final" / "state.safetensors").stat().st_size < trained + 8_000


def test_a_finished_run_is_only_read(run):
    events: list[str] = []
    state = federate(run, lambda: opened(run, events))
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    assert_same_state(federate(run, lambda: opened(run, events)), state)
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    assert events == ["open", "closed"]


def test_a_rule_of_ones_own_takes_the_place_of_the_mean(run):
    def nothing(differences, weights):
        return {name: np.zeros_like(tensor) for name, tensor in differences[0].items()}

    state = federate(run, lambda: opened(run, []), rule=nothing)
    checkpoint, _ = run.load_checkpoint()
    assert checkpoint is not None
    assert run.rounds()[0]["update_norm"] == {"retriever": 0.0}
    assert_same_state(state, checkpoint.state)
