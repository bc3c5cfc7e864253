"""Runs from a program: sites in memory, a dictionary as scenario, and what a notebook shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny_federation import SETTINGS, SHIPPED

import fedrag
from fedrag.data.site_folder import load_sites
from fedrag.errors import ConfigError, DataError

SITES = load_sites(SHIPPED)
SCENARIO = {**SETTINGS, "federation": {"rounds": 1, "wire": "float32"}, "evaluation": {"split": "test"}}


@pytest.fixture(scope="module")
def run(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> fedrag.Run:
    return fedrag.simulate(SCENARIO, sites=SITES, out=tmp_path_factory.mktemp("api") / "run")


def test_sites_in_memory_give_what_the_same_sites_in_folders_give(run: fedrag.Run, tmp_path: Path) -> None:
    folders = fedrag.simulate({**SCENARIO, "data": {"sites": str(SHIPPED)}}, out=tmp_path / "run")
    assert run.results()["federated"] == folders.results()["federated"]
    assert fedrag.evaluate(run, SITES)["overall"] == run.results()["federated"]["overall"]
    assert fedrag.evaluate(run, SHIPPED, base=True)["overall"] == run.results()["untouched"]["overall"]


def test_runs_are_compared_question_by_question(run: fedrag.Run) -> None:
    [same, again] = fedrag.compare(run, run.path, run)
    assert same == again
    assert same["mrr"].first == same["mrr"].second == run.results()["federated"]["overall"]["mrr"]
    assert (same["mrr"].difference.low, same["mrr"].difference.high) == (0.0, 0.0)
    with pytest.raises(ConfigError, match="^others: there is no run to compare"):
        fedrag.compare(run)


def test_a_run_of_sites_in_memory_can_be_resumed(run: fedrag.Run) -> None:
    before = run.results()
    assert fedrag.resume(run.path).results() == before


def test_a_notebook_shows_the_table_and_the_picture_of_a_run(run: fedrag.Run) -> None:
    page = run._repr_html_()
    assert re.search(r"Federation reaches [\d.]+ per cent exact match", page)
    assert all(f">{arm}</th>" in page for arm in ("Untouched", "Federated"))
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert "http" not in re.sub(r'xmlns[^ ]*="[^"]*"', "", page), "nothing is fetched"


def test_the_trained_models_of_a_run_answer_in_a_program(run: fedrag.Run) -> None:
    expected = fedrag.ask(run.path, "What does a late book cost?", SHIPPED / "north").trained
    [north] = [site for site in SITES if site.name == "north"]
    system = fedrag.RagSystem.of_run(run, north.passages)
    answer = system.answer("What does a late book cost?")
    assert answer.answer == expected.answer
    assert [found.passage for found in answer.found] == [found.passage for found in expected.found]


@pytest.mark.usefixtures("tiny_home")
def test_what_is_wrong_names_its_argument() -> None:
    with pytest.raises(ConfigError, match="^config: expected a Config, a dictionary or the path of a file, not int$"):
        fedrag.simulate(3)
    with pytest.raises(ConfigError, match="^config: unknown key federation.round "):
        fedrag.simulate({"federation": {"round": 3}}, sites=SITES)
    with pytest.raises(ConfigError, match="^config: data.sites is missing"):
        fedrag.simulate(SETTINGS)
    with pytest.raises(DataError, match="^sites: holds no site$"):
        fedrag.simulate(SETTINGS, sites=[])
    with pytest.raises(DataError, match=r"^sites\[1\]: expected a fedrag.Site, not str$"):
        fedrag.simulate(SETTINGS, sites=[SITES[0], "north"])
    with pytest.raises(DataError, match='^sites: two are called "east"$'):
        fedrag.simulate(SETTINGS, sites=[SITES[0], SITES[0]])
