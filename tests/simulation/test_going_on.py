"""A run that starts from another one's result, and one that gets more rounds than it had."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from tiny_federation import Lines, assert_same_state, is_changed, tiny_config, write_small_sites

from fedrag.components.state import initial_state
from fedrag.errors import ConfigError, RunError
from fedrag.files import read_json
from fedrag.reporting.page import write_report
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.plan import plan_lines
from fedrag.simulation.simulate import resume, simulate

pytestmark = pytest.mark.usefixtures("tiny_home")

CONSTANT = {"schedule": "constant", "warmup": 0.0, "learning_rate": 1e-2}
EVALUATION = {"split": "test", "baselines": ["local", "pooled"], "generate": False}


@pytest.fixture(scope="module")
def sites(tmp_path_factory, tiny_home) -> Path:
    return write_small_sites(tmp_path_factory.mktemp("data"), a=2, b=3)


@pytest.fixture(scope="module")
def first(tmp_path_factory, sites) -> RunFolder:
    """A finished run that trained the retriever alone."""
    config = tiny_config(sites, name="first", federation={"schedule": "retriever", "rounds": 1}, retriever=CONSTANT)
    return simulate(config, out=tmp_path_factory.mktemp("first") / "first-1")


def second(sites, start, **settings):
    federation = {"schedule": "generator", "rounds": 1}
    return tiny_config(sites, start_from=str(start), federation=federation, generator=CONSTANT, **settings)


def bits(run: RunFolder) -> bytes:
    return (run.path / "final" / "state.safetensors").read_bytes()


def test_a_run_starts_from_the_result_of_another_and_carries_what_it_does_not_train(first, sites, tmp_path):
    run = simulate(second(sites, first.path), out=tmp_path / "second")
    result, before = run.load_result(), first.load_result()
    assert_same_state({"retriever": result["retriever"]}, before)
    untouched = initial_state(run.config, ("retriever", "generator"))
    assert is_changed(result, untouched, "generator")
    assert is_changed(result, untouched, "retriever")
    told = run.facts["start_from"]
    assert (told["run"], told["rounds"], told["components"]) == ("first-1", 1, ["retriever"])
    delivered = run.path / "sites" / "a" / "models" / "tiny"
    assert {path.stem for path in delivered.glob("*.safetensors")} == {"generator", "retriever"}


def test_the_first_round_is_trained_on_what_it_starts_from(first, sites, tmp_path):
    """The same component once more, with another rate: it moves from the earlier result, not from the base."""
    config = tiny_config(
        sites,
        start_from=str(first.path),
        federation={"schedule": "retriever", "rounds": 1},
        retriever={**CONSTANT, "learning_rate": 1e-9},
    )
    moved, before = simulate(config, out=tmp_path / "run").load_result(), first.load_result()
    for name, tensor in moved["retriever"].items():
        assert abs(tensor - before["retriever"][name]).max() < 1e-6


def test_every_arm_starts_from_it(first, sites, tmp_path):
    run = simulate(second(sites, first.path, evaluation=EVALUATION), out=tmp_path / "run")
    for name in ("local-a", "local-b", "pooled"):
        state = RunFolder.open(run.path / "baselines" / name).load_result()
        assert_same_state({"retriever": state["retriever"]}, first.load_result())


def test_an_interrupted_run_is_resumed_without_the_run_it_started_from(first, sites, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(first.path, copy)
    whole = simulate(second(sites, copy, evaluation=EVALUATION), out=tmp_path / "whole")
    broken = tmp_path / "broken"
    shutil.copytree(whole.path, broken)
    shutil.rmtree(copy)
    for name in ("final", "checkpoints", "evaluation", "baselines", "sites"):
        shutil.rmtree(broken / name)
    (broken / "results.json").unlink()
    run = resume(broken)
    assert bits(run) == bits(whole)
    assert read_json(run.path / "results.json")["pooled"] == read_json(whole.path / "results.json")["pooled"]


def test_the_dry_run_and_the_report_name_what_a_run_starts_from(first, sites, tmp_path):
    config = second(sites, first.path)
    assert "the rounds start from the retriever of first-1" in plan_lines(config)
    run = simulate(config, out=tmp_path / "run")
    page = write_report(run).read_text()
    assert "first-1, 1 round of first" in page
    assert "(as first-1 trained it)" in page


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"retriever": {"lora": {"rank": 3}}}, "retriever.lora.rank = 2, this scenario has 3; go on with: --set "),
        ({"retriever": {"lora": {"rank": 2, "alpha": 4.0}}}, "retriever.lora.alpha = 32.0, this scenario has 4.0"),
        ({"retriever": {"weights": "full"}}, 'retriever.weights = "lora", this scenario has "full"'),
        ({"retriever": {"contrastive": {"side": "query"}}}, "by what it trained, in this scenario by the base model"),
    ],
)
def test_a_result_that_does_not_fit_is_refused_in_one_sentence(settings, told, first, sites, tmp_path):
    with pytest.raises(ConfigError) as caught:
        simulate(second(sites, first.path, **settings), out=tmp_path / "run")
    assert told in str(caught.value)
    assert str(first.path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_result_of_other_models_is_refused(first, sites, tmp_path):
    copy = tmp_path / "first-1"
    shutil.copytree(first.path, copy)
    facts = read_json(copy / "run.json")
    facts["models"]["retriever"]["tensors_sha256"] = "0" * 64
    (copy / "run.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match=r"was trained on other models than this scenario names: retriever \(tensors\)$"):
        simulate(second(sites, copy), out=tmp_path / "run")


def test_a_run_that_is_not_there_or_not_finished_is_refused(first, sites, tmp_path):
    with pytest.raises(RunError, match="is no run folder"):
        simulate(second(sites, tmp_path / "nothing"), out=tmp_path / "run")
    copy = tmp_path / "first-1"
    shutil.copytree(first.path, copy)
    shutil.rmtree(copy / "final")
    with pytest.raises(RunError, match="is not finished; go on with"):
        simulate(second(sites, copy), out=tmp_path / "run")


def long_and_short(sites, rounds, **settings):
    parts = {"generator": CONSTANT, "retriever": CONSTANT, "evaluation": EVALUATION}
    return tiny_config(sites, federation={"rounds": rounds, **settings}, **parts)


@pytest.mark.parametrize("settings", [{"schedule": "joint"}, {"schedule": "alternate", "keep": "best"}])
def test_a_finished_run_that_gets_more_rounds_has_the_bits_of_one_that_had_them_at_once(settings, sites, tmp_path):
    whole = simulate(long_and_short(sites, 3, **settings), out=tmp_path / "whole")
    run = simulate(long_and_short(sites, 2, **settings), out=tmp_path / "run")
    assert bits(run) != bits(whole)
    display = Lines()
    run = resume(run.path, rounds=3, display=display)
    assert "going on after round 2" in display.said
    assert not any("learning rate" in line for line in display.said)
    assert bits(run) == bits(whole)
    found, wanted = (read_json(r.path / "results.json") for r in (run, whole))
    assert {k: v for k, v in found.items() if k != "run"} == {k: v for k, v in wanted.items() if k != "run"}
    assert run.facts["extended"] == [{"from": 2, "to": 3}]
    assert run.config.federation.rounds == 3
    assert "; extended from 2 to 3" in write_report(run).read_text()


def test_where_the_rate_depends_on_the_number_of_rounds_a_line_says_so(first, sites, tmp_path):
    run = simulate(tiny_config(sites, federation={"schedule": "generator", "rounds": 1}), out=tmp_path / "run")
    display = Lines()
    run = resume(run.path, rounds=2, display=display)
    assert len(run.rounds()) == 2
    assert "the learning rate of the generator was so far that of a run of 1 round;" in display.text


def test_fewer_rounds_are_refused_and_nothing_is_lost(first):
    before = bits(first)
    assert bits(resume(first.path, rounds=1)) == before
    (first.path / "scenario.toml").write_text(
        (first.path / "scenario.toml").read_text().replace("rounds = 1\n", "rounds = 2\n", 1)
    )
    try:
        with pytest.raises(ConfigError, match="has 2 rounds; --rounds can only be larger, not 1"):
            resume(first.path, rounds=1)
    finally:
        (first.path / "scenario.toml").write_text(
            (first.path / "scenario.toml").read_text().replace("rounds = 2\n", "rounds = 1\n", 1)
        )
    assert bits(first) == before


@pytest.mark.parametrize("setting", ['keep = "best"', 'server_optimizer = "adam"'])
def test_a_run_whose_result_is_not_all_that_a_checkpoint_holds_names_the_other_way(setting, first, sites, tmp_path):
    copy = tmp_path / "first-1"
    shutil.copytree(first.path, copy)
    shutil.rmtree(copy / "checkpoints")
    scenario, name = (copy / "scenario.toml").read_text(), setting.split(" = ")[0]
    (copy / "scenario.toml").write_text(re.sub(f"^{name} = .*$", setting, scenario, count=1, flags=re.M))
    assert setting in (copy / "scenario.toml").read_text()
    with pytest.raises(RunError, match="has no checkpoint to go on from; start a new run with start_from = "):
        resume(copy, rounds=2)
    assert RunFolder.open(copy).is_finished


def test_a_run_that_starts_from_one_with_a_side_adapter_keeps_it_whatever_its_rule_and_sites_take_both(sites, tmp_path):
    learning = {**CONSTANT, "epochs": 4}
    federation = {"schedule": "generator", "rounds": 1}
    exact = tiny_config(sites, federation={**federation, "rule": "exact"}, generator=learning)
    before = simulate(exact, out=tmp_path / "exact").load_result()["generator"]
    sides = {name: tensor for name, tensor in before.items() if ".lora_side_" in name}
    assert sides
    later = tiny_config(sites, start_from=str(tmp_path / "exact"), federation={**federation, "rule": "svd"})
    after = simulate(later, out=tmp_path / "svd").load_result()["generator"]
    assert {name: after[name].tobytes() for name in sides} == {name: t.tobytes() for name, t in sides.items()}
    assert any((after[name] != tensor).any() for name, tensor in before.items() if name not in sides)
    everybody = sorted(site.name for site in sites.iterdir())
    assert [RunFolder.open(tmp_path / rule).delivered_to for rule in ("exact", "svd")] == [everybody] * 2
