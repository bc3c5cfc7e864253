"""Whole scenarios on real models and public data, against the figures they must reach.

All but the demo need data/xquad and data/policyqa, imported as simulations/README.md says; together they take hours
on two cores.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedrag.config.scenario import Config
from fedrag.display import LogDisplay
from fedrag.evaluation.compare import compare_scores
from fedrag.evaluation.records import scores_by_question
from fedrag.reporting.arms import ARMS, read_arms
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import simulate

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(4 * 3600)]

SCENARIOS = Path("simulations/scenarios")
HELD_OUT = ["adweek.com", "fool.com", "ted.com", "walmart.com", "yahoo.com"]
ON_HELD_OUT = [
    f"data.hold_out={json.dumps(HELD_OUT)}",
    "evaluation.sites=held-out",
    "evaluation.split=all",
]


def run(scenario: str, overrides: list[str], out: Path) -> dict[str, Any]:
    config = Config.from_file(SCENARIOS / f"{scenario}.toml", overrides)
    if not Path(config.data.sites).is_dir():
        pytest.fail(f"{config.data.sites} is missing; import it as simulations/README.md says")
    simulate(config, out=out, display=LogDisplay())
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    return {arm: results[arm]["overall"] for arm in ARMS if arm in results}


def test_demo_beats_the_untouched_models_and_each_site_alone(tmp_path: Path) -> None:
    overall = run("demo", [], tmp_path / "run")
    arms = read_arms(RunFolder.open(tmp_path / "run"))
    scores = {arm: scores_by_question(measured) for arm, measured in arms.items()}
    for metric in ("exact_match", "recall_at_1"):
        gain = compare_scores(scores["untouched"], scores["federated"], metric)
        assert gain
        assert gain.difference.low > 0
        assert overall["federated"][metric] > overall["local"][metric]


def test_xquad_generator_reaches_its_figures(tmp_path: Path) -> None:
    overall = run("xquad", ["federation.schedule=generator"], tmp_path / "run")
    assert overall["untouched"]["exact_match"] < 0.05
    assert overall["federated"]["exact_match"] >= 0.40
    assert overall["federated"]["f1"] >= 0.52


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param([], id="lora"),
        pytest.param(["retriever.weights=full", "retriever.learning_rate=1e-4"], id="full"),
    ],
)
def test_policyqa_reaches_nine_tenths_of_the_pooled_gain(weights: list[str], tmp_path: Path) -> None:
    overall = run("policyqa", [*ON_HELD_OUT, 'evaluation.baselines=["pooled"]', *weights], tmp_path / "run")
    gain = overall["federated"]["mrr"] - overall["untouched"]["mrr"]
    assert gain >= 0.9 * (overall["pooled"]["mrr"] - overall["untouched"]["mrr"])


def test_policyqa_without_labels_gains_nine_points_of_mrr(tmp_path: Path) -> None:
    overall = run("policyqa-lsr", ON_HELD_OUT, tmp_path / "run")
    assert overall["federated"]["mrr"] >= overall["untouched"]["mrr"] + 0.09
