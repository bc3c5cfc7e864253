"""Each site trains the federated result on at home, and keeps of it what gains on its own validation questions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_federation import SHIPPED, Lines, assert_same_state, small_site, tiny_config
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.components.state import initial_state
from fedrag.components.work import Workbench
from fedrag.config.scenario import Config
from fedrag.data.site_folder import load_site
from fedrag.data.writing import write_site
from fedrag.dp.ledger import LEDGER_FILE
from fedrag.errors import ConfigError
from fedrag.evaluation.evaluate import measure_sites
from fedrag.evaluation.records import read_measured, summarise
from fedrag.reporting.page import render
from fedrag.runs.home_results import HOME_FOLDER, TrainedAtHome, home_scores, load_home
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.plan import plan_lines
from fedrag.simulation.simulate import resume, simulate
from fedrag.site.home_training import home_config, train_at_home

pytestmark = pytest.mark.usefixtures("tiny_home")

FEDERATION: dict[str, Any] = {"rounds": 1, "personalise": 6}
FASTER: dict[str, Any] = {"generator": {"learning_rate": 1e-2}, "retriever": {"learning_rate": 3e-3}}
MEASURED: dict[str, Any] = {"split": "test", "baselines": ["local"]}


def write_sites(root: Path, *, with_test: bool) -> Path:
    """Write four sites: alike; one with questions of its own; one whose training misleads it; one that cannot tell."""
    other, torn = load_site(SHIPPED / "south"), small_site("torn", "east", 8)
    names = [passage.id for passage in torn.passages]
    misleading = tuple(
        replace(question, passage_ids=tuple(name for name in names if name not in question.passage_ids)[:1])
        for question in torn.train
    )
    asked = tuple(replace(question, answers=()) for question in torn.train)
    sites = (
        small_site("alike", "north", 8),
        replace(other, name="other", validation=other.train),
        replace(torn, train=misleading, validation=asked),
        replace(small_site("mute", "east", 8), validation=()),
    )
    for site in sites:
        write_site(root / site.name, site if with_test else replace(site, test=()))
    return root


@pytest.fixture(scope="module")
def run(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("personalised")
    sites = write_sites(root / "sites", with_test=True)
    return simulate(tiny_config(sites, federation=FEDERATION, evaluation=MEASURED, **FASTER), out=root / "run")


def at_home(run: RunFolder, site: str) -> TrainedAtHome:
    found = load_home(run.path / HOME_FOLDER / site)
    assert found is not None
    return found


def test_a_site_whose_questions_are_others_gains_and_keeps_its_own_weights(run):
    home = at_home(run, "other")
    assert set(home.kept) == {"generator", "retriever"}
    assert all(score.kept and score.after > score.before for score in home.scores.values())
    result = run.load_result()
    assert any((home.kept["retriever"][name] != tensor).any() for name, tensor in result["retriever"].items())
    site = load_site(Path(run.config.data.sites) / "other")  # measured on another way: question by question
    found = [
        summarise(measure_sites([site], "validation", run.config, state, False, Lines()))["mrr"]
        for state in (result, result | home.kept)
    ]
    score = home.scores["retriever"]
    assert found == pytest.approx([score.before, score.after])


def test_a_site_that_does_not_gain_keeps_the_federated_result_to_the_bit(run):
    home = at_home(run, "torn")
    assert home.kept == {}
    assert set(home.scores) == {"retriever"}  # nobody can tell whether its answers gain
    assert all(score.after <= score.before and not score.kept for score in home.scores.values())
    federated, own = (
        [item for item in read_measured(run.path / "evaluation" / f"{arm}.jsonl") if item.site == "torn"]
        for arm in ("federated", "personalised")
    )
    assert federated == own


def test_a_site_without_validation_questions_keeps_the_federated_result(run):
    home = at_home(run, "mute")
    assert (home.kept, home.scores) == ({}, {})
    assert home.why == "it has no validation questions by which to decide"


def test_the_arm_is_measured_with_what_each_site_keeps(run):
    state = run.load_result() | at_home(run, "other").kept
    site = load_site(Path(run.config.data.sites) / "other")
    expected = measure_sites([site], "test", run.config, state, True, Lines())
    found = read_measured(run.path / "evaluation" / "personalised.jsonl")
    assert [item for item in found if item.site == "other"] == expected
    assert {item.site for item in found} == {"alike", "mute", "other", "torn"}
    told = run.results()["at_home"]
    assert told["other"]["retriever"]["kept"] is True
    assert told["torn"]["retriever"]["kept"] is False


def test_the_page_and_the_commands_show_who_kept_what(run, tmp_path):
    page = render(run)
    assert "Training at home" in page
    assert "personalised minus local" in page
    assert "mute keeps the federated models: it has no validation questions by which to decide" in page
    measured = {"split": "test", "generate": False}
    config = tiny_config(Path(run.config.data.sites), federation={"rounds": 1}, evaluation=measured)
    other = simulate(config, out=tmp_path / "plain")
    told = CliRunner().invoke(app, ["compare", str(other.path), str(run.path), "--json"])
    assert told.exit_code == 0, told.output
    compared = json.loads(told.output)
    assert [(Path(one["run"]).name, one["arm"]) for one in compared["others"]] == [
        ("run", "federated"),
        ("run", "personalised"),
    ]
    assert "of 4 sites kept weights of their own" in compared["at_home"][str(run.path)]
    assert "personalised" not in render(other)


class StoppedAtHome(Lines):
    """A display at which somebody presses Ctrl-C once the first site has trained at home."""

    def progress(self, task: str, done: int, total: int) -> None:
        if task == "training at home" and done == 1:
            raise KeyboardInterrupt


def test_training_at_home_looks_at_no_test_question_and_goes_on_where_it_was_stopped(run, tmp_path):
    """The same bits come out at sites that have no test questions, in a run that was stopped after the first site."""
    sites = write_sites(tmp_path / "sites", with_test=False)
    config = tiny_config(sites, federation=FEDERATION, **FASTER)
    with pytest.raises(KeyboardInterrupt):
        simulate(config, out=tmp_path / "run", display=StoppedAtHome())
    before = (tmp_path / "run" / HOME_FOLDER / "alike" / "home.json").stat().st_mtime_ns
    lines = Lines()
    again = resume(tmp_path / "run", display=lines)
    assert "training at home: 3 of 4 sites" in lines.text
    assert (tmp_path / "run" / HOME_FOLDER / "alike" / "home.json").stat().st_mtime_ns == before
    assert_same_state(again.load_result(), run.load_result())
    assert home_scores(again.path) == home_scores(run.path)
    for name in ("alike", "other"):
        assert_same_state(at_home(again, name).kept, at_home(run, name).kept)


def test_at_home_there_is_no_noise_no_masking_and_no_frozen_factor(tmp_path):
    """Nothing of it leaves the site, so it spends no epsilon, and the ledger of the site stays as it is."""
    federation = {"rounds": 4, "schedule": "alternate", "rule": "ffa", "secure": True, "proximal_mu": 0.1}
    hard = {"contrastive": {"hard_negatives": 1}}
    config = tiny_config(federation=federation, retriever=hard, privacy={"epsilon": 4.0})
    home = home_config(config, 2)
    assert (home.privacy.is_on, home.federation.secure, home.federation.rule) == (False, False, "fedavg")
    assert (home.federation.rounds, home.federation.schedule, home.federation.proximal_mu) == (1, "joint", 0.0)
    assert (home.generator.epochs, home.retriever.epochs) == (2, 2)
    site = replace(small_site("clinic", train=2), validation=small_site("clinic", train=2).train)
    state = initial_state(config, ("generator", "retriever"))
    found = train_at_home(Workbench(site, tmp_path, tmp_path / "scores", config), state, 2, allowed=("generator",))
    assert set(found.scores) == {"generator"}
    a_factors = [name for name in state["generator"] if ".lora_A." in name]
    assert any((found.kept["generator"][name] != state["generator"][name]).any() for name in a_factors)
    assert not (tmp_path / LEDGER_FILE).exists()


def test_a_generator_that_gets_worse_at_home_is_not_kept(tmp_path):
    """A site trains on answers that contradict those which it is asked for, and which the result knows."""
    config = tiny_config(federation={"schedule": "generator"}, generator={"learning_rate": 1e-2})
    site = small_site("clinic")
    knows, misled = (
        Workbench(replace(site, train=train, validation=site.train), tmp_path, tmp_path / "scores", config)
        for train in (site.train, tuple(replace(question, answers=("7 9 8 4 6 2 3",)) for question in site.train))
    )
    result = train_at_home(knows, initial_state(config, ("generator",)), 30).kept
    found = train_at_home(misled, result, 30)
    score = found.scores["generator"]
    assert score.after < score.before
    assert (found.kept, score.kept) == ({}, False)


def test_training_that_diverges_at_home_keeps_the_federated_result(tmp_path):
    config = tiny_config(federation={"schedule": "generator"}, generator={"learning_rate": 1e30})
    state = initial_state(config, ("generator",))
    found = train_at_home(Workbench(small_site("clinic"), tmp_path, tmp_path / "scores", config), state, 3)
    assert (found.kept, found.scores, found.why) == ({}, {}, "its training diverged")


@pytest.mark.parametrize(
    ("evaluation", "sentence"),
    [
        ({"split": "validation"}, "keeps what gains on the validation questions, which then cannot be measured"),
        ({"split": "test", "sites": "held-out"}, 'but evaluation.sites = "held-out" measures others'),
    ],
)
def test_what_would_flatter_the_arm_is_refused(evaluation, sentence):
    tree = {
        "name": "tiny",
        "data": {"sites": str(SHIPPED), "hold_out": ["east"]},
        "federation": {"personalise": 1},
        "evaluation": evaluation,
    }
    with pytest.raises(ConfigError, match=sentence):
        Config.from_dict(tree)


def test_a_dry_run_says_that_sites_train_on_at_home():
    config = tiny_config(federation={"rounds": 1, "personalise": 2}, evaluation={"split": "test"})
    text = "\n".join(plan_lines(config))
    assert "after the last round each site trains on for 2 passes at home, and keeps what gains" in text
    assert "then: untouched, federated, personalised measured on the test questions" in text
