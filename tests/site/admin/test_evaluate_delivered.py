"""Delivered models measured at their site: the same figures as anywhere, and a process that disturbs nobody."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from clinic import deliver, make_clinic, set_setting, trained_run
from tiny_federation import SHIPPED, Lines

from fedrag.data.site_folder import load_site
from fedrag.errors import DataError
from fedrag.evaluation.evaluate import evaluate_run
from fedrag.evaluation.records import summarise
from fedrag.reporting.site_page import write_site_report
from fedrag.runs.run_folder import RunFolder
from fedrag.site.admin.evaluate_delivered import load_own_site, measure_delivered
from fedrag.site.delivery import Delivered, open_current
from fedrag.site.service.self_evaluation import SelfEvaluation
from fedrag.site.site_config import Policy, SiteConfig, choose_device

NORTH = SHIPPED / "north"


@pytest.fixture(scope="module")
def run(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained_run(tmp_path_factory.mktemp("home") / "run")


@pytest.fixture
def clinic(run: RunFolder, tmp_path: Path) -> Path:
    folder = make_clinic(tmp_path)
    deliver(folder, run)
    return folder


@pytest.fixture
def config(clinic: Path) -> SiteConfig:
    return SiteConfig.from_file(clinic / "site.toml")


@pytest.fixture
def delivered(clinic: Path) -> Delivered:
    return open_current(clinic)


def test_the_figures_are_those_of_the_run_on_the_same_data(run: RunFolder, config: SiteConfig, delivered: Delivered):
    measured = measure_delivered(load_own_site(config), config.policy, delivered, "test")
    for arm, base in (("untouched", True), ("federated", False)):
        assert summarise(measured[arm]) == evaluate_run(run.path, NORTH, base=base)["overall"]
        assert {item.site for item in measured[arm]} == {"clinic"}
    answers = [[item.answer for item in found] for found in measured.values()]
    assert answers[0] != answers[1]


def test_a_split_without_questions_is_refused(config: SiteConfig, delivered: Delivered):
    (Path(config.data) / "test.jsonl").unlink()
    with pytest.raises(DataError, match="clinic: has no question in its test split; choose another with --split"):
        measure_delivered(load_own_site(config), config.policy, delivered, "test")
    assert len(measure_delivered(load_own_site(config), config.policy, delivered, "validation")["federated"]) == 4


def test_a_generator_that_may_not_run_here_answers_nothing(config: SiteConfig, delivered: Delivered):
    display = Lines()
    policy = Policy(base_models={"fedrag/tiny-encoder": "0" * 64})
    measured = measure_delivered(load_own_site(config), policy, delivered, "test", display)
    assert {item.answer for found in measured.values() for item in found} == {None}
    assert "no answers are generated: fedrag/tiny-causal is not in policy.base_models" in display.said
    models = delivered.config.models.model_copy(update={"generator": "fedrag/not-fetched"})
    elsewhere = replace(delivered, config=delivered.config.model_copy(update={"models": models}))
    measured = measure_delivered(load_own_site(config), config.policy, elsewhere, "test", display)
    assert {item.answer for found in measured.values() for item in found} == {None}
    assert "fedrag/not-fetched is not among the fetched models" in display.text


def test_the_page_shows_figures_and_examples_of_the_site(clinic: Path, config: SiteConfig, delivered: Delivered):
    site = load_own_site(config)
    measured = measure_delivered(site, config.policy, delivered, "test")
    path = write_site_report(clinic, site, delivered, "test", measured)
    assert path == clinic / "models" / "tiny-1" / "report.html"
    text = path.read_text()
    recall = summarise(measured["federated"])["recall_at_1"]
    assert f"Federation reaches {100 * recall:.1f} per cent recall@1 on 6 questions." in text
    assert "tiny-1 at clinic" in text
    assert "6 test questions of clinic, measured at the site itself; this page and everything on it stays there" in text
    assert "This run used random models" in text
    assert f"fedrag client evaluate {clinic} --split test" in text
    shown = [question for question in load_site(NORTH).test if question.question in text]
    assert shown
    assert any(question.answers[0] in text for question in shown)
    assert not [question for question in load_site(NORTH).train if question.question in text]


def test_what_comes_from_the_data_is_text_and_no_markup(config: SiteConfig, delivered: Delivered, clinic: Path):
    site = load_own_site(config)
    hostile = "<script>document.title = 'broken out'</script>"
    site = replace(site, test=tuple(replace(q, question=f"{hostile} {q.question}") for q in site.test))
    arms = measure_delivered(site, config.policy, delivered, "test")
    text = write_site_report(clinic, site, delivered, "test", arms).read_text()
    assert hostile not in text
    assert "&lt;script&gt;document.title" in text


def test_only_a_site_that_says_cpu_is_kept_off_the_gpu(config: SiteConfig):
    for device, expected in (("", {}), ("cuda", {}), ("cpu", {"CUDA_VISIBLE_DEVICES": ""})):
        environment: dict[str, str] = {}
        choose_device(config.model_copy(update={"device": device}), environment)
        assert environment == expected


def tend_until(evaluation: SelfEvaluation, said: list[str], line: str, timeout_s: float = 240.0) -> None:
    """Tend until a line was said that begins so."""
    end = time.monotonic() + timeout_s
    while not [one for one in said if one.startswith(line)]:
        evaluation.tend(said.append)
        assert time.monotonic() < end, said
        time.sleep(0.02)


@pytest.mark.slow
def test_a_delivery_is_measured_by_itself_and_once(clinic: Path, config: SiteConfig):
    evaluation, said = SelfEvaluation(clinic, config, idle_s=0.1), []
    tend_until(evaluation, said, "tiny-1 is measured")
    folder = clinic / "models" / "tiny-1"
    assert said == [
        "measuring tiny-1 on this site's own test questions",
        f"tiny-1 is measured: {folder / 'report.html'}",
    ]
    assert "Federation reaches" in (folder / "report.html").read_text()
    results = json.loads((folder / "results.json").read_text())
    assert (results["run"], results["site"], results["split"]) == ("tiny-1", "clinic", "test")
    assert results["untouched"]["n_questions"] == results["federated"]["n_questions"] == 6
    for again in (evaluation, SelfEvaluation(clinic, config, idle_s=0.0)):  # also after a restart of the service
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            again.tend(said.append)
    assert len(said) == 2


@pytest.mark.slow
def test_measuring_waits_while_a_message_is_worked_on_and_gives_way_to_one(clinic: Path, config: SiteConfig):
    evaluation, said = SelfEvaluation(clinic, config, idle_s=0.0), []
    (clinic / "inbox").write_bytes(b"a request")
    for _ in range(5):
        time.sleep(0.01)
        evaluation.tend(said.append)
    assert said == []
    (clinic / "inbox").unlink()
    tend_until(evaluation, said, "measuring")
    assert evaluation._evaluation.pid
    (clinic / "inbox").write_bytes(b"a request")
    evaluation.tend(said.append)
    assert not evaluation._evaluation.pid
    assert not (clinic / "models" / "tiny-1" / "results.json").exists()
    (clinic / "inbox").unlink()
    tend_until(evaluation, said, "tiny-1 is measured")


def test_no_measuring_begins_in_quiet_hours_or_where_the_site_does_not_want_it(clinic: Path, config: SiteConfig):
    now = datetime.now()
    quiet = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=1):%H:%M}"
    policy = config.policy.model_copy(update={"quiet_hours": quiet})
    for settings in ({"policy": policy}, {"evaluate": False}):
        evaluation, said = SelfEvaluation(clinic, config.model_copy(update=settings), idle_s=0.0), []
        for _ in range(5):
            time.sleep(0.01)
            evaluation.tend(said.append)
        assert said == []
        assert not evaluation._evaluation.pid


@pytest.mark.slow
def test_measuring_that_fails_is_a_line_and_a_log_and_is_not_tried_again(clinic: Path, config: SiteConfig):
    shutil.rmtree(clinic / "data")
    evaluation, said = SelfEvaluation(clinic, config, idle_s=0.05), []
    tend_until(evaluation, said, "tiny-1 could not be measured")
    log = clinic / "logs" / "evaluation.log"
    assert said[-1] == f"tiny-1 could not be measured: {log}"
    [line] = log.read_text().splitlines()
    assert line.startswith("Error: ")
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        evaluation.tend(said.append)
    assert len(said) == 2


def test_a_damaged_list_of_deliveries_ends_the_measuring_and_nothing_else(clinic: Path, config: SiteConfig):
    (clinic / "models" / "current.json").write_text("{")
    evaluation, said = SelfEvaluation(clinic, config, idle_s=0.0), []
    for _ in range(5):
        time.sleep(0.01)
        evaluation.tend(said.append)
    [line] = said
    assert line.startswith("delivered models are not measured any more: ")
    evaluation.end()


def test_the_end_of_the_service_ends_the_measuring(clinic: Path, config: SiteConfig):
    evaluation, said = SelfEvaluation(clinic, config, idle_s=0.0), []
    tend_until(evaluation, said, "measuring")
    pid = evaluation._evaluation.pid
    evaluation.end()
    assert pid
    assert not Path(f"/proc/{pid}").exists()


def test_site_toml_says_whether_a_site_measures(clinic: Path):
    assert SiteConfig.from_file(clinic / "site.toml").evaluate
    set_setting(clinic, "evaluate", "false")
    assert not SiteConfig.from_file(clinic / "site.toml").evaluate
