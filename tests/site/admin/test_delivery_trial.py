"""Delivered models that wait, measured with real tiny models and decided by the policy, in a process of their own."""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from clinic import make_clinic, set_setting, trained_run
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.data.site_folder import load_site
from fedrag.data.writing import write_site
from fedrag.display import Quiet
from fedrag.evaluation.evaluate import evaluate_run, measure_sites
from fedrag.runs.run_folder import RunFolder
from fedrag.site import adoption
from fedrag.site.admin.delivery_trial import try_waiting
from fedrag.site.adoption import state_of
from fedrag.site.delivery import current_delivery, deliveries, save_delivery
from fedrag.site.service.self_evaluation import SelfEvaluation
from fedrag.site.site_config import SiteConfig


@pytest.fixture(scope="module")
def run(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained_run(tmp_path_factory.mktemp("home") / "run")


@pytest.fixture
def clinic(run: RunFolder, tmp_path: Path) -> Path:
    """A site to which a run's models were delivered, and wait."""
    folder = make_clinic(tmp_path)
    save_delivery(folder, "tiny-1", run.load_result(), run.config.to_toml(), adopts=False)
    return folder


def config_of(clinic: Path) -> SiteConfig:
    return SiteConfig.from_file(clinic / "site.toml")


def state(clinic: Path, run: str = "tiny-1") -> str:
    found = deliveries(clinic)
    [delivery] = [one for one in found if one.run == run]
    return state_of(delivery, current_delivery(found))


def test_the_verdict_has_the_figures_of_an_evaluation_and_few_questions_wait(clinic: Path, run: RunFolder):
    [judged] = try_waiting(clinic, config_of(clinic))
    before, after = (
        evaluate_run(run.path, clinic / "data", split="validation", base=base)["overall"]["f1"]
        for base in (True, False)
    )
    assert (judged.verdict["before"], judged.verdict["after"]) == (before, after)
    assert (judged.verdict["outcome"], judged.verdict["n_questions"]) == ("unknown", 4)
    assert state(clinic) == "waits for you"
    assert try_waiting(clinic, config_of(clinic)) == []


def test_with_enough_questions_what_is_no_worse_is_adopted_and_what_is_worse_is_not(
    clinic: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    """The same models again are no worse. Random answers of the untouched models are then made the right ones."""
    monkeypatch.setattr(adoption, "FEW_QUESTIONS", 4)
    [first] = try_waiting(clinic, config_of(clinic))
    assert first.adopted == (first.verdict["after"] >= first.verdict["before"])
    site = load_site(clinic / "data")

    said = {
        arm: {
            one.question_id: one.answer for one in measure_sites([site], "validation", run.config, state, True, Quiet())
        }
        for arm, state in (("untouched", {}), ("trained", run.load_result()))
    }
    assert said["untouched"] != said["trained"]
    for arm, expected in (("trained", "current"), ("untouched", "not adopted")):
        right = tuple(replace(q, answers=(str(said[arm][q.id]) or "-",)) for q in site.validation)
        shutil.rmtree(clinic / "data")
        write_site(clinic / "data", replace(site, validation=right))
        folder = clinic / "models" / "current.json"
        folder.unlink()
        save_delivery(clinic, "tiny-1", run.load_result(), run.config.to_toml(), adopts=False)
        try_waiting(clinic, config_of(clinic))
        assert state(clinic) == expected


def test_the_next_delivery_is_compared_with_what_is_in_use(clinic: Path, run: RunFolder, monkeypatch):
    monkeypatch.setattr(adoption, "FEW_QUESTIONS", 4)
    result = CliRunner().invoke(app, ["client", "adopt", str(clinic)])
    assert result.stdout == "tiny-1 is current now\n"
    save_delivery(clinic, "tiny-2", run.load_result(), run.config.to_toml(), adopts=False)
    [judged] = try_waiting(clinic, config_of(clinic))
    assert judged.verdict["against"] == "tiny-1"
    assert judged.verdict["before"] == judged.verdict["after"]
    assert (state(clinic, "tiny-1"), state(clinic, "tiny-2")) == ("earlier", "current")


def test_a_policy_that_asks_measures_and_waits(clinic: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(adoption, "FEW_QUESTIONS", 1)
    set_setting(clinic, "adopt", '"ask"')
    [judged] = try_waiting(clinic, config_of(clinic))
    assert judged.verdict["outcome"] in ("no worse", "worse")
    assert current_delivery(deliveries(clinic)) is None


def test_a_site_without_validation_questions_decides_for_itself(clinic: Path):
    (clinic / "data" / "validation.jsonl").unlink()
    output = CliRunner().invoke(app, ["client", "adopt", str(clinic), "--by-policy"]).stdout
    assert output == (
        "tiny-1: cannot be told: this site has no validation questions; it waits for you; to take it into use: "
        f"fedrag client adopt {clinic} tiny-1\n"
    )
    listed = CliRunner().invoke(app, ["client", "models", str(clinic)]).stdout
    assert "waits for you" in listed
    assert listed.endswith(output)


def tend_until(service: SelfEvaluation, said: list[str], word: str, timeout_s: float = 120.0) -> None:
    end = time.monotonic() + timeout_s
    while not [line for line in said if word in line]:
        service.tend(said.append)
        assert time.monotonic() < end, said
        time.sleep(0.02)


@pytest.mark.slow
def test_a_running_site_judges_by_itself_even_when_the_measuring_is_killed(clinic: Path):
    set_setting(clinic, "evaluate", "false")
    service, said = SelfEvaluation(clinic, config_of(clinic), idle_s=0.1), []
    tend_until(service, said, "measuring tiny-1 on this site's own validation questions")
    os.kill(service._trial.pid, signal.SIGKILL)
    assert state(clinic) == "to be measured"
    tend_until(service, said, "it waits for you")
    assert said[1] == said[0]
    assert state(clinic) == "waits for you"
    for _ in range(10):
        time.sleep(0.05)
        service.tend(said.append)
    assert len(said) == 3
    service.end()


@pytest.mark.slow
def test_what_cannot_be_measured_waits_for_a_person_and_names_the_log(clinic: Path):
    path = clinic / "models" / "tiny-1" / "generator.safetensors"
    path.write_bytes(b"not what was delivered")
    service, said = SelfEvaluation(clinic, config_of(clinic), idle_s=0.05), []
    tend_until(service, said, "it waits for you")
    log = clinic / "logs" / "adoption.log"
    assert f"cannot be told: it could not be measured, see {log}" in said[-1]
    assert "is not what was delivered" in log.read_text()
    service.end()
