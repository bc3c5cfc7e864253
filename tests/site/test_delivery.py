"""The models a site received: which are current, the way back, and what a crash or a stranger cannot do."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_federation import assert_same_state, tiny_config

from fedrag.errors import ConfigError, MessageError, ModelError, RunError, StorageError
from fedrag.runs.facts import model_facts
from fedrag.site.adoption import adopt
from fedrag.site.delivery import current_delivery, deliveries, open_current, remove_deliveries, roll_back, save_delivery
from fedrag.weights.store import find_model

SCENARIO = tiny_config().to_toml()


def tensors(value):
    return {"weight": np.full((2, 3), value, np.float32), "bias": np.full(3, -value, np.float32)}


def receive(folder, run, value, *components):
    save_delivery(folder, run, {component: tensors(value) for component in components or ("generator",)}, SCENARIO)


def current_run(folder):
    found = current_delivery(deliveries(folder))
    return found.run if found else None


def test_the_latest_delivery_is_current_and_holds_exactly_what_was_delivered(tmp_path):
    receive(tmp_path, "a-1", 1.0)
    receive(tmp_path, "b-1", 2.0, "generator", "retriever")
    delivered = open_current(tmp_path)
    assert (delivered.run, delivered.folder) == ("b-1", tmp_path / "models" / "b-1")
    assert delivered.config.to_toml() == SCENARIO
    expected = dict(sorted(tensors(2.0).items()))
    assert_same_state(delivered.state, {"generator": expected, "retriever": expected})
    assert [(delivery.run, delivery.components) for delivery in deliveries(tmp_path)] == [
        ("a-1", ("generator",)),
        ("b-1", ("generator", "retriever")),
    ]


def test_models_whose_base_has_changed_since_are_not_used(own_tiny_causal, tmp_path):
    """With another chat template the adapter reads prompts on which it was not trained."""
    models = {"generator": model_facts(find_model("fedrag/tiny-causal"))}
    save_delivery(tmp_path, "a-1", {"generator": tensors(1.0)}, SCENARIO, models)
    assert open_current(tmp_path).run == "a-1"
    (own_tiny_causal / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    with pytest.raises(
        ModelError, match=r"its base models changed since it was delivered: generator \(chat template\)"
    ):
        open_current(tmp_path)


def test_going_back_leads_step_by_step_to_the_untouched_models(tmp_path):
    for number in (1, 2):
        receive(tmp_path, f"a-{number}", number)
    taken_back, current = roll_back(tmp_path)
    assert (taken_back.run, current.run if current else None) == ("a-2", "a-1")
    assert open_current(tmp_path).state["generator"]["weight"][0, 0] == 1.0
    assert roll_back(tmp_path)[1] is None
    with pytest.raises(ConfigError, match="the untouched models are current; there is nothing to go back to"):
        roll_back(tmp_path)
    with pytest.raises(ModelError, match="all delivered models were taken back$"):
        open_current(tmp_path)
    assert (tmp_path / "models" / "a-2" / "generator.safetensors").is_file()


def test_what_was_taken_back_stays_so_when_a_later_delivery_is_taken_back_too(tmp_path):
    receive(tmp_path, "good-1", 1.0)
    receive(tmp_path, "bad-1", 2.0)
    roll_back(tmp_path)
    receive(tmp_path, "bad-2", 3.0)
    roll_back(tmp_path)
    assert current_run(tmp_path) == "good-1"


def test_another_run_of_the_same_name_does_not_write_over_the_models_of_the_first(tmp_path):
    """A coordinator that was set up anew counts its runs from 1 again."""
    receive(tmp_path, "a-1", 1.0, "generator", "retriever")
    (tmp_path / "models" / "a-1" / "report.html").write_text("of the first")
    before = {path: path.read_bytes() for path in (tmp_path / "models" / "a-1").iterdir()}
    receive(tmp_path, "a-1", 3.0)
    save_delivery(tmp_path, "a-1", {"generator": tensors(3.0)}, f"{SCENARIO}\n# another")
    assert [delivery.run for delivery in deliveries(tmp_path)] == ["a-1", "a-1.2", "a-1.3"]
    assert {path: path.read_bytes() for path in (tmp_path / "models" / "a-1").iterdir()} == before
    assert open_current(tmp_path).state["generator"]["weight"][0, 0] == 3.0
    assert roll_back(tmp_path)[1] == deliveries(tmp_path)[1]
    roll_back(tmp_path)
    assert open_current(tmp_path).state["generator"]["weight"][0, 0] == 1.0


@pytest.mark.parametrize(("run", "value"), [("a-1", 1.0), ("a-1", 2.0), ("z-9", 1.0)])
def test_what_was_rolled_back_stays_back_altered_or_under_another_name_until_a_person_says_so(tmp_path, run, value):
    """With adopt = "always" a changed bit, or another name for the run, put it into use again."""
    receive(tmp_path, "good-1", 5.0)
    receive(tmp_path, "a-1", 1.0)
    roll_back(tmp_path)
    receive(tmp_path, run, value)
    assert current_run(tmp_path) == "good-1"
    newest = deliveries(tmp_path)[-1]
    assert not newest.is_to_be_judged
    assert adopt(tmp_path, newest.run).run == newest.run
    assert current_run(tmp_path) == newest.run


def test_the_same_models_once_more_leave_their_figures_and_mend_what_is_damaged(tmp_path):
    receive(tmp_path, "a-1", 1.0)
    folder = tmp_path / "models" / "a-1"
    (folder / "report.html").write_text("of these models")
    receive(tmp_path, "a-1", 1.0)
    assert (folder / "report.html").is_file()
    (folder / "generator.safetensors").write_bytes(b"damaged")
    receive(tmp_path, "a-1", 1.0)
    assert open_current(tmp_path).state["generator"]["weight"][0, 0] == 1.0
    assert [delivery.run for delivery in deliveries(tmp_path)] == ["a-1"]


RECEIVED = st.tuples(st.sampled_from(("a-1", "b-1", "roll back")), st.integers(0, 3))


@settings(max_examples=25)
@given(st.lists(RECEIVED, max_size=10))
@example([("a-1", 0), ("b-1", 0), ("roll back", 0)])  # the way back led to the same models under another name
def test_no_order_of_deliveries_alters_a_stored_model_or_brings_back_what_was_rolled_back(tmp_path_factory, received):
    folder = tmp_path_factory.mktemp("site")
    refused, kept = set[str](), {}
    for run, value in received:
        if run != "roll back":
            receive(folder, run, float(value))
        elif current := current_delivery(deliveries(folder)):
            refused.add(current.sha256["generator"])
            roll_back(folder)
        found = {path: path.read_bytes() for path in folder.rglob("*.safetensors")}
        assert kept.items() <= found.items()
        kept = found
        now = current_delivery(deliveries(folder))
        assert now is None or now.sha256["generator"] not in refused


def test_what_was_taken_back_does_not_come_back_when_it_is_delivered_again(tmp_path):
    """A coordinator delivers again to a site whose reply was lost."""
    receive(tmp_path, "a-1", 1.0)
    receive(tmp_path, "b-1", 2.0)
    roll_back(tmp_path)
    for adopts in (True, False):
        save_delivery(tmp_path, "b-1", {"generator": tensors(2.0)}, SCENARIO, adopts=adopts)
        assert current_run(tmp_path) == "a-1"
    assert [delivery.taken_back for delivery in deliveries(tmp_path)] == [False, True]
    receive(tmp_path, "a-1", 1.0)
    assert [delivery.run for delivery in deliveries(tmp_path)] == ["a-1", "b-1"]


def test_a_delivery_that_waits_changes_nothing_that_is_in_use(tmp_path):
    save_delivery(tmp_path, "a-1", {"generator": tensors(1.0)}, SCENARIO, adopts=False)
    assert current_run(tmp_path) is None
    with pytest.raises(ModelError, match="no delivered models are adopted"):
        open_current(tmp_path)
    receive(tmp_path, "b-1", 2.0)
    save_delivery(tmp_path, "c-1", {"generator": tensors(3.0)}, SCENARIO, adopts=False)
    assert current_run(tmp_path) == "b-1"
    assert [delivery.is_to_be_judged for delivery in deliveries(tmp_path)] == [True, False, True]


def test_a_list_that_an_earlier_version_wrote_is_read(tmp_path):
    receive(tmp_path, "a-1", 1.0)
    path = tmp_path / "models" / "current.json"
    [entry] = json.loads(path.read_text())["history"]
    old = {key: value for key, value in entry.items() if key not in ("adopted", "verdict", "scenario")}
    path.write_text(json.dumps({"history": [old]}))
    assert current_run(tmp_path) == "a-1"


def test_a_delivery_that_is_interrupted_is_never_current(tmp_path, monkeypatch):
    receive(tmp_path, "a-1", 1.0)
    for moment in ("replace", "fsync"):

        def power_cut(*arguments, **options):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(f"fedrag.files.os.{moment}", power_cut)
            with pytest.raises(KeyboardInterrupt):
                receive(tmp_path, "a-2", 2.0)
        assert current_run(tmp_path) == "a-1"
        assert not (tmp_path / "models" / "a-2").exists()
    receive(tmp_path, "a-2", 2.0)
    assert current_run(tmp_path) == "a-2"


def test_a_delivery_that_cannot_be_written_leaves_the_one_before(tmp_path):
    receive(tmp_path, "a-1", 1.0)
    (tmp_path / "models" / "a-2").write_text("in the way")
    with pytest.raises(StorageError, match="a-2: cannot be written"):
        receive(tmp_path, "a-2", 2.0)
    assert current_run(tmp_path) == "a-1"


@pytest.mark.parametrize("run", ["../a", "a/b", ".hidden", "", "a" * 101, "a\n", "current.json"])
def test_a_run_s_name_leads_nowhere_else(tmp_path, run):
    with pytest.raises(MessageError, match="expected at most 100 letters"):
        receive(tmp_path / "site", run, 1.0)
    assert not list(tmp_path.rglob("*"))


def test_models_that_are_missing_or_altered_are_not_used_and_the_error_tells_the_way_out(tmp_path):
    receive(tmp_path, "a-1", 1.0)
    receive(tmp_path, "b-1", 2.0)
    path = tmp_path / "models" / "b-1" / "generator.safetensors"
    path.write_bytes((tmp_path / "models" / "a-1" / "generator.safetensors").read_bytes())
    with pytest.raises(ModelError, match=rf"b-1/generator.safetensors: is not what was delivered; go back.*{tmp_path}"):
        open_current(tmp_path)
    path.unlink()
    with pytest.raises(ModelError, match="generator.safetensors: cannot be read: No such file"):
        open_current(tmp_path)
    shutil.rmtree(path.parent)
    with pytest.raises(RunError, match="scenario.toml: no such scenario file.*fedrag client rollback"):
        open_current(tmp_path)
    roll_back(tmp_path)
    assert open_current(tmp_path).run == "a-1"


def test_a_site_without_deliveries_says_so(tmp_path):
    assert deliveries(tmp_path) == []
    with pytest.raises(ModelError, match="no models were delivered yet"):
        open_current(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"history": [{"run": "a"}]}', '{"history": [1]}'])
def test_a_damaged_list_is_named_and_not_taken_for_an_empty_one(tmp_path, text):
    receive(tmp_path, "a-1", 1.0)
    (tmp_path / "models" / "current.json").write_text(text)
    with pytest.raises(RunError, match="current.json: "):
        deliveries(tmp_path)
    with pytest.raises(RunError, match="current.json: "):
        receive(tmp_path, "a-2", 1.0)
    assert (tmp_path / "models" / "current.json").read_text() == text


def test_the_list_holds_names_times_and_hashes_and_nothing_of_the_data(tmp_path):
    receive(tmp_path, "a-1", 1.0)
    [entry] = json.loads((tmp_path / "models" / "current.json").read_text())["history"]
    assert set(entry) == {"run", "time", "sha256", "models", "taken_back", "adopted", "verdict", "scenario", "home"}


def test_a_run_that_is_forgotten_gives_way_to_the_one_before(tmp_path):
    for number in (1, 2, 3):
        receive(tmp_path, f"a-{number}", number)
    remove_deliveries(tmp_path, ["a-3", "a-1"])
    assert current_run(tmp_path) == "a-2"
    remove_deliveries(tmp_path, ["a-2"])
    assert not (tmp_path / "models" / "current.json").exists()
