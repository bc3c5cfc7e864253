"""A simulation with the loss and the rule of a module that its scenario names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import own_module
import pytest
from tiny_federation import assert_same_state, tiny_config, write_small_sites

from fedrag.config.scenario import Config
from fedrag.errors import ConfigError, RunError
from fedrag.runs.run_folder import RunFolder
from fedrag.security.module_source import source_sha256
from fedrag.simulation.simulate import resume, simulate
from fedrag.training.losses import Losses, answer_loss

pytestmark = pytest.mark.usefixtures("tiny_home")

OWN = {"module": own_module.NAME, "answer": "half", "rule": "first"}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_sites(tmp_path_factory.mktemp("sites"), a=2, b=3)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield own_module.install(tmp_path)
    sys.modules.pop(own_module.NAME, None)


def scenario(sites: Path, **own: str) -> Config:
    return tiny_config(sites, federation={"rounds": 1, "schedule": "generator"}, own=own)


def half(logits: Any, labels: Any) -> Any:
    return answer_loss(logits, labels) / 2


def first(differences: Any, weights: Any) -> Any:
    return differences[0]


def test_it_gives_the_bits_of_the_same_functions_from_python(module: Path, sites: Path, tmp_path: Path):
    named = simulate(scenario(sites, **OWN), out=tmp_path / "named")
    usual = simulate(scenario(sites), out=tmp_path / "usual")
    given = simulate(scenario(sites), out=tmp_path / "given", losses=Losses(answer=half), rule=first)
    assert_same_state(named.load_result(), given.load_result())
    tensors = usual.load_result()["generator"]
    assert any(not np.array_equal(named.load_result()["generator"][name], tensors[name]) for name in tensors)
    assert named.facts["own"] == {"losses.answer": "hospital_rules.half", "rule": "hospital_rules.first"}
    assert named.facts["own_module"] == {"name": "hospital_rules", "sha256": source_sha256("hospital_rules")}


def test_it_is_not_resumed_without_the_module_or_with_another(module: Path, sites: Path, tmp_path: Path):
    run = simulate(scenario(sites, **OWN), out=tmp_path / "run")
    module.write_text(own_module.TEXT + "# changed\n")
    with pytest.raises(RunError, match="cannot be resumed: the source of hospital_rules changed"):
        resume(run.path)
    module.write_text(own_module.TEXT)
    assert resume(run.path).is_finished
    module.unlink()
    with pytest.raises(RunError, match=r"cannot be resumed without its own functions: .* is not installed here"):
        resume(run.path)
    assert RunFolder.open(run.path).is_finished


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"module": "hospital_rules", "answer": "none"}, "own.answer: hospital_rules has no function none"),
        ({"module": "nowhere", "rule": "first"}, "own.module: nowhere is not installed here"),
    ],
)
def test_what_cannot_be_found_is_told_before_a_folder_is_made(module: Path, sites: Path, tmp_path: Path, own, told):
    with pytest.raises(ConfigError, match=told):
        simulate(scenario(sites, **own), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"module": "hospital_rules"}, "own.module names a module, but no function of it"),
        ({"rule": "first"}, "own.rule names a function, but own.module no module that holds it"),
        ({"module": "a.b", "rule": "first"}, "own.module"),
    ],
)
def test_a_scenario_names_both_module_and_function(sites: Path, own: dict[str, str], told: str):
    with pytest.raises(ConfigError, match=told):
        scenario(sites, **own)


def test_a_caller_s_functions_and_those_of_the_scenario_do_not_mix(module: Path, sites: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="leave out losses= and rule="):
        simulate(scenario(sites, **OWN), out=tmp_path / "run", rule=first)
