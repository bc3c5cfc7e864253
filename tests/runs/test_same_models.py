"""What a run trained is used on the base models it was trained with, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_federation import SHIPPED, tiny_config

import fedrag
from fedrag.coordinator import executor
from fedrag.coordinator.server_folder import ServerConfig, ServerFolder
from fedrag.errors import RunError
from fedrag.evaluation.ask import BeforeAndAfter
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import simulate

NORTH = SHIPPED / "north"


@pytest.fixture(scope="module")
def run(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return simulate(tiny_config(NORTH, federation={"rounds": 1}), out=tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def models(run: RunFolder, own_home: Path) -> Path:
    """Models that this test alone may change."""
    return own_home / "models"


def change_template(models: Path) -> None:
    (models / "fedrag--tiny-causal" / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")


def test_a_run_is_asked_measured_and_exported_on_the_models_it_was_trained_with(run, models, tmp_path):
    assert BeforeAndAfter.of_run(run.path, NORTH).site == "north"
    assert fedrag.evaluate(run.path, NORTH)["overall"]
    assert fedrag.export_run(run.path, tmp_path / "out")


def test_with_another_chat_template_it_is_refused_and_the_template_is_named(run, models, tmp_path):
    change_template(models)
    changed = r"its models changed since it was trained: generator \(chat template\); fetch again"
    with pytest.raises(RunError, match=changed):
        BeforeAndAfter.of_run(run.path, NORTH)
    with pytest.raises(RunError, match=changed):
        fedrag.evaluate(run.path, NORTH)
    with pytest.raises(RunError, match=changed):
        fedrag.export_run(run.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_coordinator_does_not_go_on_with_a_run_on_other_models(run, models, tmp_path):
    begun = RunFolder.create(run.config, tmp_path / "begun")
    begun.record_facts({"models": run.facts["models"]})
    change_template(models)
    with pytest.raises(RunError, match=r"generator \(chat template\)"):
        executor._run(ServerFolder(tmp_path, ServerConfig(name="127.0.0.1")), "begun", begun, executor.TimedLog())


def test_the_retriever_alone_is_measured_whatever_the_generator_is(run, models):
    change_template(models)
    assert fedrag.evaluate(run.path, NORTH, only_retrieval=True)["overall"]


def test_other_prompts_of_the_retriever_are_named(run, models):
    file = models / "fedrag--tiny-encoder" / "config_sentence_transformers.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prompts": {"query": "query: "}}))
    with pytest.raises(RunError, match=r"its models changed since it was trained: retriever \(prompts\)"):
        BeforeAndAfter.of_run(run.path, NORTH)
