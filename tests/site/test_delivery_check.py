"""What a site takes from a coordinator as trained models: those of the scenario, whole and finite, or nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import load_file
from tiny_federation import tiny_config, write_small_sites

from fedrag.components.state import initial_state
from fedrag.federation.lora_error import lora_pairs
from fedrag.federation.lora_factors import SIDE
from fedrag.federation.messages import DELIVER, Request, request_content
from fedrag.federation.refusal_codes import REFUSALS
from fedrag.federation.update import manifest_of
from fedrag.site import delivery
from fedrag.site.client_app import make_client_app
from fedrag.site.delivery import current_delivery, deliveries, roll_back

pytestmark = pytest.mark.usefixtures("tiny_home")

CONFIG = tiny_config()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_small_sites(tmp_path_factory.mktemp("sites"), north=2) / "north"


@pytest.fixture
def state(tiny_home):
    """The tensors that a run of the scenario ends with; a test may spoil them."""
    return initial_state(CONFIG, ("generator", "retriever"))


@pytest.fixture
def deliver(data, tmp_path):
    """Hand a site models as a coordinator does, and return the code of its refusal, or nothing."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 0, 1, 1
    app = make_client_app()

    def delivered(state, run="tiny-1", config=CONFIG) -> str:
        node = {"site-name": "north", "site-folder": str(data), "site-cache": str(tmp_path), "run": run}
        context = Context(run_id=1, node_id=2, node_config=node, state=RecordDict(), run_config={})
        message = Message(request_content(Request(config.to_toml(), 2, state)), 2, DELIVER, group_id="delivery")
        content = app(message=message, context=context).content
        return str(content["refusal"]["code"]) if "refusal" in content else ""

    return delivered


def spoil(name, value):
    def change(state):
        tensor = next(iter(state["generator"].values()))
        tensor.reshape(-1)[name] = value

    return change


SPOILT = {
    "nothing at all": lambda state: state.clear(),
    "a component without tensors": lambda state: state.update(generator={}),
    "NaN": spoil(0, np.nan),
    "infinity": spoil(-1, np.inf),
    "a component less": lambda state: state.pop("retriever"),
    "a component of another make": lambda state: state.update(reranker={"head": np.ones(3, np.float32)}),
    "a foreign tensor": lambda state: state["generator"].update(backdoor=np.ones(3, np.float32)),
    "a tensor less": lambda state: state["generator"].popitem(),
    "another shape": lambda state: state["retriever"].update(
        {name: np.ones((7, 3), np.float32) for name in list(state["retriever"])[:1]}
    ),
    "the tensors of the other component": lambda state: state.update(generator=state["retriever"]),
}


@pytest.mark.parametrize("what", SPOILT)
def test_models_that_are_not_the_scenario_s_are_refused_by_a_code_and_not_stored(deliver, state, tmp_path, what):
    SPOILT[what](state)
    assert deliver(state) == "bad-delivery"
    assert "bad-delivery" in REFUSALS
    assert not (tmp_path / "models").exists()


def test_the_models_of_the_scenario_are_taken(deliver, state, tmp_path):
    assert deliver(state) == ""
    [taken] = deliveries(tmp_path)
    assert (taken.run, taken.components) == ("tiny-1", ("generator", "retriever"))


def with_side(state, rank=3):
    """Put a side adapter beside the retriever's first pair of factors, as the rule "exact" does."""
    b, a = lora_pairs(manifest_of(state["retriever"]))[0]
    chance = np.random.default_rng(0)
    state["retriever"] |= {
        name.replace(".lora_", SIDE): chance.normal(size=shape).astype(np.float32)
        for name, shape in ((b, (len(state["retriever"][b]), rank)), (a, (rank, state["retriever"][a].shape[1])))
    }
    return [name for name in state["retriever"] if SIDE in name]


def test_a_side_adapter_of_the_scenario_s_layers_is_taken_with_the_factors(deliver, state, tmp_path):
    """Every site refused the result of the rule "exact"."""
    with_side(state)
    assert deliver(state) == ""
    saved = load_file(tmp_path / "models" / "tiny-1" / "retriever.safetensors")
    assert saved.keys() == state["retriever"].keys()


SPOILT_SIDES = {
    "half a pair": lambda tensors, b, a: tensors.pop(b),
    "ranks that differ": lambda tensors, b, a: tensors.update({b: tensors[b][:, :2]}),
    "another layer's width": lambda tensors, b, a: tensors.update({a: tensors[a][:, :-1]}),
    "no rank": lambda tensors, b, a: tensors.update({b: tensors[b][:, :0], a: tensors[a][:0]}),
    "a rank above the layer's": lambda tensors, b, a: tensors.update(
        {b: np.tile(tensors[b], (1, 99)), a: np.tile(tensors[a], (99, 1))}
    ),
    "one dimension": lambda tensors, b, a: tensors.update({b: tensors[b].reshape(-1)}),
    "NaN": lambda tensors, b, a: tensors[a].fill(np.nan),
    "a layer that is not trained": lambda tensors, b, a: tensors.update({f"x.{a}": tensors[a], f"x.{b}": tensors[b]}),
}


@pytest.mark.parametrize("what", SPOILT_SIDES)
def test_a_side_adapter_that_fits_no_layer_is_refused(deliver, state, tmp_path, what):
    b, a = with_side(state)
    SPOILT_SIDES[what](state["retriever"], b, a)
    assert deliver(state) == "bad-delivery"
    assert not (tmp_path / "models").exists()


def test_a_run_that_started_from_another_may_hand_on_what_it_did_not_train(deliver, state, tmp_path):
    assert deliver(state, config=tiny_config(federation={"schedule": "retriever"})) == ""
    assert deliveries(tmp_path)[0].components == ("generator", "retriever")


def test_what_is_in_use_is_not_written_over_by_a_bad_delivery(deliver, state, tmp_path):
    assert deliver(state) == ""
    before = {path: path.read_bytes() for path in (tmp_path / "models").rglob("*") if path.is_file()}
    spoil(0, np.nan)(state)
    assert deliver(state) == "bad-delivery"
    assert {path: path.read_bytes() for path in (tmp_path / "models").rglob("*") if path.is_file()} == before


def test_what_was_rolled_back_stays_back_though_a_bit_of_it_changed(deliver, state, tmp_path):
    """With adopt = "always" one changed bit was enough to put it into use again."""
    assert deliver(state) == ""
    roll_back(tmp_path)
    spoil(0, 0.125)(state)
    assert deliver(state) == ""
    assert current_delivery(deliveries(tmp_path)) is None
    assert [one.run for one in deliveries(tmp_path)] == ["tiny-1", "tiny-1.2"]


def test_a_flood_of_deliveries_ends_at_a_number(deliver, state, tmp_path, monkeypatch):
    monkeypatch.setattr(delivery, "MOST_DELIVERIES", 2)
    assert [deliver(state, f"tiny-{number}") for number in (1, 2, 3)] == ["", "", "deliveries-full"]
    assert deliver(state, "tiny-2") == ""  # it is here already
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [
        ".lock",
        "current.json",
        "tiny-1",
        "tiny-2",
    ]
