"""A site trains the models in use on at home, uses what gains, and goes back from it; nothing of it leaves."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from clinic import make_clinic, set_setting
from tiny_federation import SHIPPED, assert_same_state, tiny_config
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.components.state import initial_state
from fedrag.data.site_folder import load_site
from fedrag.data.writing import write_site
from fedrag.site.delivery import current_delivery, deliveries, models_folder, open_current, save_delivery
from fedrag.site.home_delivery import due_at_home
from fedrag.site.service.self_evaluation import SelfEvaluation
from fedrag.site.site_config import SiteConfig
from fedrag.types import State

pytestmark = pytest.mark.usefixtures("tiny_home")

CONFIG = tiny_config(
    SHIPPED / "north",
    federation={"rounds": 1, "schedule": "retriever"},
    retriever={"learning_rate": 5e-3},
    evaluation={"split": "test", "generate": False},
)


def delivered_state() -> State:
    return initial_state(CONFIG, ("retriever",))


def in_order(state: State) -> State:
    """Return tensors in the order of their names, as a file has them."""
    return {component: dict(sorted(tensors.items())) for component, tensors in state.items()}


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """A site that asks, to judge by, what it trains on: training gains; models of a run are in use."""
    folder = make_clinic(tmp_path)
    shutil.copy(folder / "data" / "train.jsonl", folder / "data" / "validation.jsonl")
    set_setting(folder, "personalise", "8")
    save_delivery(folder, "tiny-1", delivered_state(), CONFIG.to_toml())
    return folder


def client(verb: str, folder: Path, *arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["client", verb, str(folder), *arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_what_gains_is_used_and_shown_and_one_can_go_back_from_it(clinic: Path):
    told = client("personalise", clinic)
    assert "tiny-1: trained on at home for 8 passes: retriever" in told
    assert "tiny-1.home is current now" in told
    home = open_current(clinic)
    assert home.run == "tiny-1.home"
    assert any(
        (tensor != delivered_state()["retriever"][name]).any() for name, tensor in home.state["retriever"].items()
    )
    assert json.loads(client("models", clinic, "--json"))["current"] == "tiny-1.home"
    assert "trained on at home for 8 passes" in client("models", clinic)
    shown = client("evaluate", clinic)
    assert "trained on at home" in shown
    assert "Personalised" in (home.folder / "report.html").read_text(encoding="utf-8")
    assert not (clinic / "egress.jsonl").exists()  # nothing has left
    again = CliRunner().invoke(app, ["client", "personalise", str(clinic)])
    assert again.exit_code == 2
    assert "tiny-1.home was trained on at home already" in again.output
    assert "tiny-1.home is taken back; tiny-1 is current now" in client("rollback", clinic)
    assert_same_state(in_order(open_current(clinic).state), in_order(delivered_state()))
    assert due_at_home(deliveries(clinic)) is None  # what one went back from does not come again by itself
    assert "tiny-1.home is current now" in client("adopt", clinic, "tiny-1.home")
    assert_same_state(in_order(open_current(clinic).state), in_order(home.state))


def test_models_that_come_later_are_judged_by_themselves(clinic: Path):
    client("personalise", clinic)
    client("rollback", clinic)
    save_delivery(clinic, "tiny-1", delivered_state(), CONFIG.to_toml())
    assert [one.run for one in deliveries(clinic)] == ["tiny-1", "tiny-1.home"]
    other = {"retriever": {name: tensor + 1 for name, tensor in delivered_state()["retriever"].items()}}
    save_delivery(clinic, "tiny-1", other, CONFIG.to_toml())
    current = current_delivery(deliveries(clinic))
    assert current is not None
    assert (current.run, current.taken_back) == ("tiny-1.2", False)  # it went back from its own, not from the run's
    assert due_at_home(deliveries(clinic)) == current


def test_what_does_not_gain_leaves_the_delivered_models_in_use_to_the_bit(clinic: Path):
    site = load_site(clinic / "data")
    names = [passage.id for passage in site.passages]
    misleading = tuple(  # it trains on wrong passages, and is asked for the right ones
        replace(question, passage_ids=tuple(name for name in names if name not in question.passage_ids)[:1])
        for question in site.train
    )
    shutil.rmtree(clinic / "data")
    write_site(clinic / "data", replace(site, train=misleading))
    told = client("personalise", clinic)
    assert "not kept" in told
    assert "tiny-1 is current now" in told
    assert_same_state(in_order(open_current(clinic).state), in_order(delivered_state()))
    assert not models_folder(clinic, "tiny-1.home").exists()
    assert due_at_home(deliveries(clinic)) is None


def test_the_policy_says_what_may_be_trained(clinic: Path):
    set_setting(clinic, "components", '["generator"]')
    assert "the policy allows none of its components to be trained, not kept" in client("personalise", clinic)
    assert open_current(clinic).run == "tiny-1"


def test_without_delivered_models_there_is_nothing_to_train_on(clinic: Path):
    client("rollback", clinic)
    told = CliRunner().invoke(app, ["client", "personalise", str(clinic)])
    assert told.exit_code == 2
    assert "the untouched models are current; there is nothing to train on" in told.output


@pytest.mark.slow
def test_a_running_site_trains_on_by_itself_once_and_only_where_its_settings_say_so(clinic: Path):
    import time

    set_setting(clinic, "evaluate", "false")
    set_setting(clinic, "personalise", "0")
    off = SelfEvaluation(clinic, SiteConfig.from_file(clinic / "site.toml"), idle_s=0.0)
    said: list[str] = []
    for _ in range(20):
        off.tend(said.append)
        time.sleep(0.01)
    assert said == []
    set_setting(clinic, "personalise", "8")
    service = SelfEvaluation(clinic, SiteConfig.from_file(clinic / "site.toml"), idle_s=0.0)
    end = time.monotonic() + 400
    while len(said) < 2:
        service.tend(said.append)
        assert time.monotonic() < end, said
        time.sleep(0.05)
    service.tend(said.append)
    service.end()
    assert said[0] == "training tiny-1 on at home"
    assert said[1].startswith("tiny-1: trained on at home for 8 passes: retriever")
    assert len(said) == 2
    assert open_current(clinic).run == "tiny-1.home"
