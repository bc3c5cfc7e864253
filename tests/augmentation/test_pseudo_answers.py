"""`fedrag data answers`: the models of a run answer what nobody answered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny_federation import tiny_config
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.data.site_folder import load_site
from fedrag.data.writing import write_sites
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import simulate
from fedrag.site.delivery import save_delivery
from fedrag.types import Passage, Question, Site

pytestmark = pytest.mark.usefixtures("tiny_home")

THINGS = ("gate", "hall", "yard", "roof")
PASSAGES = tuple(Passage(f"p{n}", f"A porter guards the {thing}.") for n, thing in enumerate(THINGS))
SURE = ("--confidence", "0.05")  # of the tiny model, which says one word whatever it is asked


@pytest.fixture(scope="module")
def taught(tmp_path_factory, tiny_home) -> RunFolder:
    """A run on a site with two answered and three unanswered questions, whose generator has learnt to say porter."""
    root = tmp_path_factory.mktemp("data") / "sites"
    known = tuple(Question(f"t{n}", f"Who guards the {THINGS[n]}?", ("porter",), (f"p{n}",)) for n in (0, 1))
    asked = tuple(Question(f"t{n}", f"Who looks after the {THINGS[n]}?", ()) for n in (0, 2, 3))
    write_sites(root, [Site("east", PASSAGES, known, unanswered=asked)])
    generator = {"epochs": 40, "learning_rate": 1e-2, "schedule": "constant", "lora": {"rank": 8}}
    config = tiny_config(root, name="taught", generator=generator, federation={"schedule": "generator", "rounds": 1})
    return simulate(config, out=root.parent / "taught-1")


@pytest.fixture
def site(taught, tmp_path) -> Path:
    return shutil.copytree(Path(taught.config.data.sites) / "east", tmp_path / "east")


def run(*arguments: object):
    return CliRunner().invoke(app, ["data", "answers", *map(str, arguments)])


def rows(site: Path) -> list[dict]:
    return [json.loads(line) for line in (site / "train.jsonl").read_text().splitlines()]


def test_what_the_models_are_sure_of_becomes_training_questions(site, taught):
    before = (site / "unanswered.jsonl").read_bytes()
    result = run(site, "--run", taught.path, *SURE)
    assert result.exit_code == 0, result.output
    assert "3 questions added to" in result.output
    assert "3 of 3 questions that nobody answered have an answer now" in result.output
    new = rows(site)[2:]
    assert [(row["answers"], row["origin"]) for row in new] == [(["porter"], "pseudo")] * 3
    assert all(len(row["passage_ids"]) == 1 for row in new)
    assert len({row["id"] for row in rows(site)}) == 5
    assert (site / "unanswered.jsonl").read_bytes() == before
    assert load_site(site).unanswered == ()


def test_a_second_command_finds_nothing_to_answer(site, taught):
    run(site, "--run", taught.path, *SURE)
    before = (site / "train.jsonl").read_bytes()
    result = run(site, "--run", taught.path, *SURE)
    assert "has no unanswered question" in result.output
    assert (site / "train.jsonl").read_bytes() == before


def test_what_is_not_sure_is_counted_and_stays_unanswered(site, taught):
    result = run(site, "--run", taught.path, "--confidence", "0.99")
    assert result.exit_code == 0, result.output
    assert "0 questions added" in result.output
    assert "an answer below the confidence: 3" in result.output
    assert len(load_site(site).unanswered) == 3
    again = run(site, "--run", taught.path, "--confidence", "0.99")
    assert "an answer below the confidence: 3" in again.output


def test_a_limit_adds_so_many_and_the_next_command_the_rest(site, taught):
    run(site, "--run", taught.path, *SURE, "--limit", "1")
    assert len(rows(site)) == 3
    run(site, "--run", taught.path, *SURE)
    assert len(rows(site)) == 5


def test_where_passages_change_questions_are_tried_again(site, taught):
    """The first time no passage holds an answer, the second time all do."""
    text = (site / "passages.jsonl").read_text()
    (site / "passages.jsonl").write_text(text.replace("porter", "person"))
    assert "an answer that stands in no passage found: 3" in run(site, "--run", taught.path, *SURE).output
    (site / "passages.jsonl").write_text(text)
    assert "3 questions added to" in run(site, "--run", taught.path, *SURE).output


def test_a_run_and_a_scenario_are_one_too_many(site, taught):
    result = run(site, "--run", taught.path, "--scenario", taught.path / "scenario.toml")
    assert result.exit_code == 2
    assert "--run, --client and --scenario each name the models that answer; name one of them" in result.output


def test_the_models_that_were_delivered_to_a_site_answer(site, taught, tmp_path):
    save_delivery(tmp_path / "clinic", "taught-1", taught.load_result(), taught.config.to_toml())
    result = run(site, "--client", tmp_path / "clinic", *SURE)
    assert "3 questions added to" in result.output


def test_a_closed_book_is_refused(site, tmp_path):
    (tmp_path / "closed.toml").write_text('name = "closed"\n[data]\nsites = "x"\n[rag]\npassages = 0\n')
    result = run(site, "--scenario", tmp_path / "closed.toml")
    assert result.exit_code == 2
    assert "rag.passages = 0: answers are kept where they stand in a passage found" in result.output


def test_untouched_models_answer_where_no_run_is_named(site, taught):
    result = run(site, "--scenario", taught.path / "scenario.toml", *SURE)
    assert result.exit_code == 0, result.output
    assert "0 questions added" in result.output
