"""An audit finds a model that was made to memorise, and nothing in one that was not trained."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_federation import SHIPPED, Lines, tiny_config, write_small_sites
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.config.scenario import Config
from fedrag.data.canaries import make_canaries
from fedrag.data.planted_canaries import plant_canaries
from fedrag.data.site_folder import load_site, load_sites
from fedrag.data.writing import write_site
from fedrag.dp.ledger import LEDGER_FILE, PrivacyLedger
from fedrag.errors import DataError
from fedrag.privacy.audit import audit_of, audit_run
from fedrag.privacy.audited import audited_questions
from fedrag.privacy.findings import headline, sentences
from fedrag.privacy.membership import FEWEST_OTHERS, Separation
from fedrag.privacy.one_run import EpsilonBound
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import simulate
from fedrag.types import Question, Site

pytestmark = pytest.mark.usefixtures("tiny_home")

MEMORISE: dict[str, Any] = {
    "rag": {"passages": 0, "answer_tokens": 40},
    "generator": {"epochs": 50, "learning_rate": 5e-3, "batch_size": 4, "lora": {"rank": 64}},
    "federation": {"rounds": 1, "schedule": "generator"},
    "simulation": {"canaries": 60},
}


BY_HEART: dict[str, Any] = {
    "name": "by-heart",
    "models": {"generator_dtype": "float32"},
    "rag": {"passages": 0, "answer_tokens": 8},
    "generator": {
        "epochs": 16,
        "learning_rate": 5e-3,
        "batch_size": 8,
        "adapter_from": "question",
        "schedule": "constant",
        "warmup": 0.0,
    },
    "federation": {"rounds": 1, "schedule": "generator"},
    "evaluation": {"split": "none"},
    "simulation": {"threads": 1},
}
"""Six questions are a batch, so an epoch is a step. After eight all six are known by heart, and four told from others;
after sixteen all six."""


class Stopped(Lines):
    """A display that ends the audit when it comes to the answers, as a kill would."""

    def say(self, line: str) -> None:
        if line.startswith("asking every question"):
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def run(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return simulate(tiny_config(SHIPPED, federation={"rounds": 1}), out=tmp_path_factory.mktemp("audited") / "run")


def test_a_model_that_was_made_to_memorise_is_found(tmp_path: Path):
    """All 23 planted canaries are told, by 30 right guesses of 30, which show an epsilon of 1.85.

    On another processor one guess may be wrong, which leaves 1.42, and not two: 1.13. Of the 8 answers 3 are told by
    heart; the exact interval of that share begins at less than one answer.
    """
    run = simulate(tiny_config(write_small_sites(tmp_path / "sites", north=8), **MEMORISE), out=tmp_path / "run")
    result = audit_run(run.path)
    people, canaries = result["membership"]["generator"], result["canaries"]
    assert people["found"] > 0.5
    assert people["auc"] > 0.9
    told = Separation(**canaries["membership"]["generator"])
    assert told.found_low > 0.7
    assert told.auc_low > 0.95
    assert canaries["epsilon"]["generator"]["epsilon"] > 1.4
    assert canaries["planted"] + canaries["held_back"] == 60
    assert run.facts["origins"] == {"": 8, "canary": canaries["planted"]}
    assert result["answers"]["members"]["trained"]["hits"] >= 1
    assert result["answers"]["others"]["trained"]["hits"] == 0
    assert "Too few held-back questions" in headline(result), "so few show no false accusation in a hundred"
    assert json.loads((run.path / "audit" / "audit.json").read_text()) == result
    sites = load_sites(tmp_path / "sites")
    others = {"north": make_canaries(sites[0], 60, 11)}  # of another seed: it was trained on none of them
    told_of_others = audit_of(sites, run.config, run.load_result(), others)["canaries"]
    chance = Separation(**told_of_others["membership"]["generator"])
    assert chance.auc_low < 0.5 < chance.auc_high
    assert chance.found_low < 0.02
    assert told_of_others["epsilon"]["generator"]["epsilon"] < 0.5
    with (tmp_path / "sites" / "north" / "passages.jsonl").open("a") as file:
        file.write('{"id": "new", "text": "A passage that came after the run."}\n')
    late = audit_run(run.path)
    assert late["changed"] == ["north"]
    assert "canaries" not in late, "with other passages the same seed throws other coins"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("real_models")
def test_a_real_model_that_was_made_to_memorise_answers_by_heart_and_is_found(tmp_path: Path):
    north = load_site(SHIPPED / "north")
    write_site(tmp_path / "sites" / "north", replace(north, train=north.train[:6]))
    config = Config.from_dict(BY_HEART | {"data": {"sites": str(tmp_path / "sites")}})
    result = audit_run(simulate(config, out=tmp_path / "run").path)
    told = Separation(**result["membership"]["generator"])
    assert told.found > 0.5
    assert told.auc_low > 0.9
    members, others = result["answers"]["members"], result["answers"]["others"]
    assert (members["trained"]["hits"], members["trained"]["n"]) == (6, 6)
    assert members["untouched"]["hits"] == others["untouched"]["hits"] == others["trained"]["hits"] == 0
    assert "Too few held-back questions" in headline(result), "ten show no false accusation in a hundred"


def test_what_canaries_show_of_training_with_noise_lies_below_what_the_ledger_allows(tmp_path: Path):
    noised = MEMORISE | {"privacy": {"epsilon": 8.0, "steps": 20}}
    run = simulate(tiny_config(write_small_sites(tmp_path / "sites", north=8), **noised), out=tmp_path / "run")
    canaries = audit_run(run.path)["canaries"]
    ledger = PrivacyLedger(run.path / "sites" / "north" / LEDGER_FILE)
    assert canaries["allowed"] == ledger.epsilon(canaries["epsilon"]["generator"]["delta"])
    assert 0.0 <= canaries["epsilon"]["generator"]["epsilon"] < 8.0 < canaries["allowed"], (
        "its delta is the smaller one"
    )
    assert Separation(**canaries["membership"]["generator"]).found < 0.5
    told = sentences(json.loads((run.path / "audit" / "audit.json").read_text()))
    assert f"allows an epsilon of {canaries['allowed']:.2f} at most" in told[-1]


def test_an_audit_that_was_stopped_goes_on_with_what_it_had(run: RunFolder):
    whole = audit_run(run.path)
    with pytest.raises(KeyboardInterrupt):
        audit_run(run.path, display=Stopped())
    kept = run.path / "audit" / "kept"
    assert sorted(path.stem for path in kept.iterdir()) == [
        f"{component}-{site}" for component in ("generator", "retriever") for site in range(3)
    ]
    assert audit_run(run.path) == whole
    assert not kept.exists()
    with pytest.raises(KeyboardInterrupt):
        audit_run(run.path, display=Stopped())
    content = json.loads((kept / "retriever-0.json").read_text())
    (kept / "retriever-0.json").write_text(json.dumps(content | {"result": [9.0] * len(content["result"])}))
    (kept / "generator-0.json").write_text('{"key": "of other models", "result": []}')
    (kept / "generator-1.json").write_text('{"key": ')
    again = audit_run(run.path)
    assert again["membership"]["retriever"] != whole["membership"]["retriever"], "it is taken as it was kept"
    assert again["membership"]["generator"] == whole["membership"]["generator"], "what does not fit is done anew"


def test_canaries_in_the_data_are_told_of_the_run_that_had_them_alone(tmp_path: Path):
    sites = Path(shutil.copytree(SHIPPED, tmp_path / "sites"))
    before = simulate(tiny_config(sites, federation={"rounds": 1, "schedule": "retriever"}), out=tmp_path / "before")
    plant_canaries(sites / "north", 60, 0)
    after = simulate(tiny_config(sites, federation={"rounds": 1, "schedule": "retriever"}), out=tmp_path / "after")
    late = audit_run(before.path)
    assert ("canaries" in late, late["changed"]) == (False, ["north"])
    assert sentences(late)[-1].startswith("The data of north is not what the run trained on: ")
    result = audit_run(after.path)
    told = result["canaries"]
    assert "changed" not in result
    assert told["planted"] + told["held_back"] == 60
    assert told["membership"]["retriever"]["n_members"] == told["planted"]
    with pytest.raises(DataError, match=r"north: has canaries of its own; simulation.canaries must be 0"):
        simulate(tiny_config(sites, simulation={"canaries": 10}), out=tmp_path / "both")


def test_a_model_that_was_not_trained_is_at_chance(run: RunFolder):
    untouched = {component: {n: 0 * t for n, t in tensors.items()} for component, tensors in run.load_result().items()}
    result = audit_of(load_sites(SHIPPED), run.config, untouched)
    for figures in result["membership"].values():
        assert (figures["auc"], figures["found"]) == (0.5, 0.0)
    canaries = {site.name: make_canaries(site, 100, 0) for site in load_sites(SHIPPED)}
    told = audit_of(load_sites(SHIPPED), run.config, untouched, canaries)["canaries"]
    for component, figures in told["membership"].items():
        assert (figures["auc"], figures["found"], told["epsilon"][component]["epsilon"]) == (0.5, 0.0, 0.0)
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


def test_of_data_that_changed_nothing_is_said_for_certain():
    none = Separation(200, 500, 0.5, 0.45, 0.55, 0.01, 0.0, 0.03).to_json()
    changed = {"membership": {"generator": none}, "changed": ["north"]}
    assert headline(changed).startswith("Nothing can be said for certain: the data is not what was trained on.")
    assert "The data of north is not what the run trained on" in sentences(changed)[-1]


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


def test_canaries_that_are_found_are_the_headline_and_have_their_sentences():
    none = Separation(200, 500, 0.5, 0.45, 0.55, 0.01, 0.0, 0.03).to_json()
    clear = Separation(120, 130, 0.99, 0.98, 1.0, 0.9, 0.85, 0.94).to_json()
    canaries = {
        "planted": 120,
        "held_back": 130,
        "membership": {"generator": clear},
        "epsilon": {"generator": EpsilonBound(2.345, 1e-5, 250, 124, 120).to_json()},
    }
    result = {"membership": {"generator": none}, "canaries": canaries}
    assert headline(result) == "Single questions that the generator learnt from can be told from others."
    said = " ".join(sentences(result))
    assert "Of 250 made-up questions, a coin planted 120 among the training questions and held 130 back." in said
    assert "those planted score higher in 99 of 100 pairs" in said
    assert "Of 124 guesses, 120 are right: its training leaves more trace of a question than any epsilon below" in said
    few = canaries | {"membership": {"generator": none | {"n_others": 30}}}
    assert "cannot be told" in headline(result | {"canaries": few}), "too few canaries: those of people still count"
