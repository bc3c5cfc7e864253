"""Canaries: what they are, where they go, and where they never go."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from scipy.stats import binomtest
from tiny_federation import SHIPPED, tiny_config
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.data.canaries import make_canaries, with_canaries
from fedrag.data.planted_canaries import CANARIES_FILE, plant_canaries, read_canaries
from fedrag.data.questions import question_key
from fedrag.data.site_folder import load_site
from fedrag.errors import DataError
from fedrag.evaluation.measure import measure_site
from fedrag.site.site_paths import SitePaths


@pytest.fixture
def north(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED / "north", tmp_path / "north"))


def test_the_coin_is_fair_and_the_seed_decides():
    site = load_site(SHIPPED / "north")
    made = make_canaries(site, 1000, 3)
    assert len(made) == 1000
    assert binomtest(len(made.planted), 1000, 0.5).pvalue > 0.001
    assert make_canaries(site, 1000, 3) == made
    assert not set(make_canaries(site, 1000, 4).in_order) & set(made.in_order)
    assert len({question_key(question.question) for question in made.in_order}) == 1000
    labels = {question.passage_ids for question in made.in_order}
    assert labels == {(passage.id,) for passage in site.passages}


def test_more_canaries_leave_the_first_ones_as_they_are():
    site = load_site(SHIPPED / "north")
    few, many = (make_canaries(site, number, 0) for number in (10, 20))
    assert few.planted == many.planted[: len(few.planted)]


def test_a_site_that_trains_on_nothing_has_none():
    site = load_site(SHIPPED / "north")
    assert len(with_canaries(site, 20, 0).train) > len(site.train)
    untrained = type(site)(site.name, site.passages, test=site.test)
    assert with_canaries(untrained, 20, 0) == untrained


def test_no_figure_is_measured_on_them():
    site = with_canaries(load_site(SHIPPED / "north"), 20, 0)
    measured = measure_site(site, "all", tiny_config(), None, None)
    assert not [one for one in measured if one.question_id.startswith("canary")]
    assert len(measured) == len(load_site(SHIPPED / "north").questions)


def test_a_client_of_a_simulation_has_those_that_the_audit_will_know(tmp_path: Path):
    folders = [str(SHIPPED / name) for name in ("north", "south")]
    node = {"site-folder": folders[0], "site-name": "north", "site-cache": str(tmp_path), "canaries": "[20, 3]"}
    alone = SitePaths.from_node_config(node, tiny_config()).load()
    assert alone == with_canaries(load_site(SHIPPED / "north"), 20, 3)
    together = SitePaths.from_node_config(node | {"pooled": json.dumps({"folders": folders})}, tiny_config()).load()
    planted = [question.id for question in together.train if question.origin == "canary"]
    expected = {name: make_canaries(load_site(SHIPPED / name), 20, 3).planted for name in ("north", "south")}
    assert planted == [f"{name}/{question.id}" for name, made in expected.items() for question in made]


def test_they_are_planted_in_training_alone_and_taken_out_byte_for_byte(north: Path):
    files = {path.name: path.read_bytes() for path in north.iterdir()}
    made = plant_canaries(north, 50, 1)
    site = load_site(north)
    assert [question for question in site.train if question.origin == "canary"] == list(made.planted)
    assert not [question for question in site.validation + site.test if question.origin == "canary"]
    assert read_canaries(north) == type(made)(
        tuple(q for q in made.in_order if q in made.planted), tuple(q for q in made.in_order if q in made.held_back)
    )
    assert {json.loads(line)["seed"] for line in (north / CANARIES_FILE).read_text().splitlines()} == {1}
    with pytest.raises(DataError, match="has canaries already"):
        plant_canaries(north, 50, 1)
    assert CliRunner().invoke(app, ["data", "canaries", str(north), "--remove"]).exit_code == 0
    assert {path.name: path.read_bytes() for path in north.iterdir()} == files


def test_one_in_another_file_than_train_is_refused(north: Path):
    plant_canaries(north, 20, 0)
    line = next(line for line in (north / "train.jsonl").read_text().splitlines() if '"canary"' in line)
    (north / "test.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match='"origin" is "canary": it is made up, so it may stand in train.jsonl alone'):
        load_site(north)


def test_a_list_that_does_not_fit_the_training_questions_is_refused(north: Path):
    plant_canaries(north, 20, 0)
    lines = (north / "train.jsonl").read_text().splitlines(keepends=True)
    (north / "train.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(DataError, match="names other canaries than train.jsonl has; take all of them out"):
        read_canaries(north)


def test_a_list_with_a_line_that_is_none_is_refused(north: Path):
    plant_canaries(north, 20, 0)
    with (north / CANARIES_FILE).open("a") as file:
        file.write('{"id": "x", "question": "What?", "answers": ["so"]}\n')
    with pytest.raises(DataError, match=r'canaries.jsonl:21: "planted" is missing'):
        read_canaries(north)


def test_those_that_were_planted_after_the_models_came_are_none_yet(north: Path):
    plant_canaries(north, 20, 0)
    assert len(read_canaries(north, until="2020-01-01T00:00:00+00:00")) == 0
    assert len(read_canaries(north, until="2999-01-01T00:00:00+00:00")) == 20


def test_the_command_says_what_it_did_and_counts_them_everywhere(north: Path):
    done = CliRunner().invoke(app, ["data", "canaries", str(north), "--number", "20", "--seed", "5"])
    assert done.exit_code == 0, done.output
    assert "a headline needs 100 that are held back" in done.stdout
    assert "planted for an audit" in CliRunner().invoke(app, ["data", "check", str(north)]).stdout
    wrong = CliRunner().invoke(app, ["data", "canaries", str(north)])
    assert wrong.exit_code == 2
    assert "expected --number N, the canaries to make, or --remove alone" in wrong.output
