"""`fedrag new`, as a person types it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.config.scenario import Config
from fedrag.data.check import check_sites
from fedrag.data.site_folder import load_sites, site_folders
from fedrag.runs.run_folder import RunFolder
from fedrag.types import SPLITS

TINY = ["models.generator=fedrag/tiny-causal", "models.retriever=fedrag/tiny-encoder"]
SHORT = ["rag.prompt_tokens=192", "rag.answer_tokens=4", "federation.rounds=1", "simulation.threads=1"]
SETTINGS = [part for setting in (*TINY, *SHORT) for part in ("--set", setting)]
SITES = ["harbour-library", "hillside-library"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDRAG_HOME", str(tiny_home))
    monkeypatch.chdir(tmp_path)


def fedrag(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    return result.stderr


def test_it_runs_as_it_stands_from_outside_and_from_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fedrag("new", "mine")
    assert fedrag("data", "check", "mine/sites").endswith("No errors.\n")
    assert "round 1/1: 2 of 2 sites" in fedrag("simulate", "mine/scenario.toml", *SETTINGS)
    monkeypatch.chdir("mine")
    assert fedrag("data", "check", "sites").endswith("No errors.\n")
    assert "round 1/1: 2 of 2 sites" in fedrag("simulate", "scenario.toml", *SETTINGS)
    for run in ("runs/libraries-1", "mine/runs/libraries-1"):
        folder = RunFolder.open(tmp_path / run)
        assert Path(folder.config.data.sites) == tmp_path / "mine" / "sites"
        assert folder.results()["federated"]["overall"]["n_questions"] == 10


def test_it_says_what_to_type_next_and_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FEDRAG_HOME", str(tmp_path / "nothing fetched"))
    first, *commands = fedrag("new", "my federation").splitlines()
    assert first == "my federation: a scenario, two example sites and a README. Next:"
    assert commands == [
        "  fedrag models fetch",
        "  fedrag data check 'my federation/sites'",
        "  fedrag simulate 'my federation/scenario.toml'",
    ]
    fedrag(*shlex.split(commands[1])[1:])
    assert "not among the fetched models; run: fedrag models fetch" in refusal(*shlex.split(commands[2])[1:])


def test_an_empty_folder_is_filled_and_stays_the_one_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir("empty")
    fedrag("new", ".")
    assert sorted(path.name for path in Path().iterdir()) == ["README.md", "scenario.toml", "sites"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_what_is_there_already_is_not_touched(tmp_path: Path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    for name in ("taken", "file"):
        assert refusal("new", name) == (
            f"Error: {name}: exists already and is not an empty folder; remove it or choose another\n"
        )
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["letter.txt"]


def test_the_example_sites_are_clean_and_their_answers_stand_in_their_passages():
    fedrag("new", "mine")
    report = check_sites(site_folders(Path("mine/sites")))
    assert (report.errors, report.warnings) == ((), ())
    for site in load_sites(Path("mine/sites")):
        assert [len(site.split(split)) for split in SPLITS] == [12, 3, 5]
        texts = {passage.id: passage.text for passage in site.passages}
        for question in (question for split in SPLITS for question in site.split(split)):
            (label,) = question.passage_ids
            assert question.answers[0] in texts[label], question


def test_every_line_of_the_scenario_that_sets_something_is_explained():
    fedrag("new", "mine")
    config = Config.from_file("mine/scenario.toml")
    defaults = Config.from_dict({"name": "a", "data": {"sites": "b"}})
    assert config.models == defaults.models
    text = Path("mine/scenario.toml").read_text()
    settings = [line for line in text.splitlines() if re.match(r"\w+ = ", line)]
    explained_once = ("generator = ", "retriever = ", "learning_rate = 5e-4", "epochs = 2")
    assert len(settings) > 15
    assert all("  # " in line or line.startswith(explained_once) for line in settings)


def test_the_readme_names_files_and_commands_that_exist():
    fedrag("new", "mine")
    text = Path("mine/README.md").read_text()
    assert all((Path("mine/sites") / name).is_dir() for name in SITES)
    assert "--data sites/hillside-library" in text
    question = re.search(r'"(How many .*?)"', text)
    assert question
    [asked] = [q for site in load_sites(Path("mine/sites")) for q in site.test if q.question == question[1]]
    assert asked.answers[0] == "five"
