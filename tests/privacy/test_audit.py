"""An audit finds a model that was made to memorise, and nothing in one that was not trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_federation import SHIPPED, tiny_config
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.config.scenario import Config
from fedrag.data.site_folder import load_site, load_sites
from fedrag.data.writing import write_site
from fedrag.errors import DataError
from fedrag.privacy.audit import audit_of, audit_run
from fedrag.privacy.audited import audited_questions
from fedrag.privacy.findings import headline, sentences
from fedrag.privacy.membership import FEWEST_OTHERS, Separation
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import simulate
from fedrag.types import Question, Site

pytestmark = pytest.mark.usefixtures("tiny_home")

MEMORISE: dict[str, Any] = {
    "name": "memorised",
    "rag": {"passages": 0, "answer_tokens": 12},
    "generator": {
        "epochs": 50,
        "learning_rate": 4e-3,
        "batch_size": 8,
        "adapter_from": "question",
        "schedule": "constant",
    },
    "federation": {"rounds": 1, "schedule": "generator"},
    "evaluation": {"split": "none"},
}


@pytest.fixture(scope="module")
def run(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return simulate(tiny_config(SHIPPED, federation={"rounds": 1}), out=tmp_path_factory.mktemp("audited") / "run")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("real_models")
def test_a_model_that_was_made_to_memorise_is_found(tmp_path: Path):
    north = load_site(SHIPPED / "north")
    write_site(tmp_path / "sites" / "north", replace(north, train=north.train[:3], test=north.test + north.train[3:]))
    config = Config.from_dict(MEMORISE | {"data": {"sites": str(tmp_path / "sites")}})
    run = simulate(config, out=tmp_path / "run")
    result = audit_run(run.path)
    told = Separation(**result["membership"]["generator"])
    assert told.found > 0.5
    assert told.auc_low > 0.9
    assert result["answers"]["members"]["trained"]["hits"] == 3
    assert result["answers"]["others"]["trained"]["hits"] < 4
    assert "Too few held-back questions" in headline(result), "23 show no false accusation in a hundred"
    assert json.loads((run.path / "audit" / "audit.json").read_text()) == result


def test_a_model_that_was_not_trained_is_at_chance(run: RunFolder):
    untouched = {component: {n: 0 * t for n, t in tensors.items()} for component, tensors in run.load_result().items()}
    result = audit_of(load_sites(SHIPPED), run.config, untouched)
    for figures in result["membership"].values():
        assert (figures["auc"], figures["found"]) == (0.5, 0.0)
    assert "Too few held-back questions for a headline" in headline(result)


def test_what_it_says_holds_no_text_of_the_sites(run: RunFolder, tmp_path: Path):
    done = CliRunner().invoke(app, ["audit", str(run.path), "--json", str(tmp_path / "audit.json")])
    assert done.exit_code == 0, done.output
    page = (run.path / "audit" / "audit.html").read_text()
    said = done.stdout + (tmp_path / "audit.json").read_text() + page
    for site in load_sites(SHIPPED):
        assert not [q for q in site.questions if q.question in said]
        assert not [p for p in site.passages if p.text in said]
    for sentence in sentences(json.loads((tmp_path / "audit.json").read_text())):
        assert sentence in page


def test_a_question_that_another_site_trained_on_is_no_held_back_one():
    question = [Question(f"q{i}", f"Question {i}?", ("yes",)) for i in range(4)]
    sites = [
        Site("north", (), train=(question[0],), test=(question[1], question[2])),
        Site("south", (), train=(question[1],), test=(question[3],)),
    ]
    first, second = audited_questions(sites)
    assert (first.others, second.others) == ((question[2],), (question[3],))
    with pytest.raises(DataError, match="no site has both"):
        audited_questions([Site("alone", (), train=(question[0],))])


def test_a_headline_needs_enough_questions_that_were_held_back():
    few, many = (Separation(80, n, 0.5, 0.4, 0.6, 0.0, 0.0, 0.05) for n in (FEWEST_OTHERS - 1, FEWEST_OTHERS))
    assert "Too few" in headline({"membership": {"generator": few.to_json()}})
    assert "cannot be told" in headline({"membership": {"generator": many.to_json()}})


def test_what_is_clearly_remembered_is_the_headline():
    clear = Separation(200, 500, 0.99, 0.98, 1.0, 0.9, 0.85, 0.94).to_json()
    none = Separation(200, 500, 0.5, 0.45, 0.55, 0.01, 0.0, 0.03).to_json()
    said = headline({"membership": {"generator": clear, "retriever": none}})
    assert said == "Single questions that the generator learnt from can be told from others."


def test_two_sites_that_ask_the_same_count_it_twice(run: RunFolder):
    north = load_site(SHIPPED / "north")
    once, twice = (
        audit_of([replace(north, name=name) for name in names], run.config, run.load_result())
        for names in (["a"], ["a", "b"])
    )
    for component, figures in once["membership"].items():
        assert twice["membership"][component]["n_members"] == 2 * figures["n_members"]
        assert twice["membership"][component]["n_others"] == 2 * figures["n_others"]
    assert twice["answers"]["others"]["trained"]["n"] == 2 * once["answers"]["others"]["trained"]["n"]


def test_a_trace_on_average_is_no_clean_bill():
    trace = Separation(200, 500, 0.57, 0.53, 0.61, 0.0, 0.0, 0.02).to_json()
    said = headline({"membership": {"generator": trace, "retriever": trace}})
    assert said.startswith("On average the generator and the retriever do better on questions learnt from")
