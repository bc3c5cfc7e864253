"""A component of one's own goes through rounds, aggregation, checkpoints, delivery and export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_federation import Lines, assert_same_state, federate, tiny_config, write_small_sites

from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import ComponentSpec, Steps
from fedrag.components.work import Prepared
from fedrag.errors import ConfigError, QuorumError
from fedrag.reporting.page import write_report
from fedrag.simulation.plan import plan_lines
from fedrag.simulation.simulate import resume, simulate
from fedrag.training.result import TrainingResult

pytestmark = pytest.mark.usefixtures("tiny_home")

NAME = "counter"


def prepare(work):
    """Learn the number of the site's training questions."""
    learnt = {"count": np.full(3, len(work.bench.site.train), "float32")}
    return Prepared(len(work.bench.site.train), lambda: TrainingResult.of(learnt, [0.5]))


def validate(work):
    return 3.0 * len(work.bench.site.validation), len(work.bench.site.validation)


STEPS = Steps(
    initial_state=lambda config, seed: {"count": np.zeros(3, "float32")},
    prepare=prepare,
    validate=validate,
    export=lambda config, tensors, folder: save_file(tensors, folder / "count.safetensors"),
)
COUNTER = ComponentSpec(
    steps=lambda: STEPS, base_models=lambda config: ("retriever",), learns_from=lambda config: "train_questions"
)
COMPONENTS = {**SHIPPED, NAME: COUNTER}


@pytest.fixture(scope="module")
def sites(tmp_path_factory) -> Path:
    return write_small_sites(tmp_path_factory.mktemp("sites"), a=2, b=4)


def config_of(sites, components=(NAME,), **federation):
    return tiny_config(sites, federation={"components": list(components), "validate_every": 1, **federation})


@pytest.fixture(scope="module")
def finished(sites, tiny_home, tmp_path_factory):
    return simulate(config_of(sites), out=tmp_path_factory.mktemp("own") / "run", components=COMPONENTS)


def test_its_updates_are_weighted_and_added_round_after_round(finished):
    [tensors] = finished.load_result().values()
    np.testing.assert_allclose(tensors["count"], np.full(3, 2 * (2 * 2 + 4 * 4) / 6), rtol=1e-6)


def test_its_numbers_stand_in_the_log(finished):
    record = finished.rounds()[-1]
    assert record["components"] == [NAME]
    assert record["validation"] == {NAME: 3.0}
    assert {name: told["counter.examples"] for name, told in record["sites"].items()} == {"a": 2, "b": 4}
    assert {told["counter.loss"] for told in record["sites"].values()} == {0.5}


def test_it_is_exported_and_delivered(finished):
    result = finished.load_result()[NAME]["count"]
    exported = load_file(finished.path / "final" / NAME / "count.safetensors")
    np.testing.assert_array_equal(exported["count"], result)
    for site in ("a", "b"):
        [delivered] = (finished.path / "sites" / site).rglob(f"{NAME}.safetensors")
        np.testing.assert_array_equal(load_file(delivered)["count"], result)


def test_no_other_component_is_trained_or_loaded_for_it(finished):
    assert list(finished.load_result()) == [NAME]
    assert list(finished.facts["models"]) == ["retriever"]


def test_beside_it_a_component_that_comes_with_fedrag_learns_the_same_bits(sites, tmp_path):
    alone = simulate(tiny_config(sites, federation={"schedule": "retriever"}), out=tmp_path / "alone")
    both = simulate(config_of(sites, (NAME, "retriever")), out=tmp_path / "both", components=COMPONENTS)
    state = both.load_result()
    assert set(state) == {NAME, "retriever"}
    assert_same_state({"retriever": state["retriever"]}, alone.load_result())


def test_an_interrupted_run_goes_on_with_it_to_the_same_result(sites, finished, tmp_path):
    def interrupted(work):
        if work.request.round_number == 2:
            raise KeyboardInterrupt
        return prepare(work)

    broken = replace(COUNTER, steps=lambda: replace(STEPS, prepare=interrupted))
    with pytest.raises(KeyboardInterrupt):
        simulate(config_of(sites), out=tmp_path / "run", components={**SHIPPED, NAME: broken})
    run = resume(tmp_path / "run", components=COMPONENTS)
    assert [record["round"] for record in run.rounds()] == [1, 2]
    assert_same_state(run.load_result(), finished.load_result())


def test_keep_best_keeps_the_tensors_of_its_best_round(sites, tmp_path):
    def best_after_the_first(work):
        return -abs(work.request.round_number - 1.0), 1

    peaking = replace(COUNTER, steps=lambda: replace(STEPS, validate=best_after_the_first))
    run = simulate(config_of(sites, keep="best"), out=tmp_path / "run", components={**SHIPPED, NAME: peaking})
    np.testing.assert_allclose(run.load_result()[NAME]["count"], np.full(3, 20 / 6), rtol=1e-6)


def test_a_plan_describes_it(sites):
    plan = "\n".join(plan_lines(config_of(sites), COMPONENTS))
    assert "counter: 3 weights learn from 6 questions, 1 pass a round, in 2 rounds" in plan


def test_a_page_about_its_run_shows_its_curves(finished):
    page = write_report(finished.path).read_text()
    assert "each trains counter" in page
    for title in ("Training loss of the counter", "Validation of the counter", "Size of the counter&#39;s update"):
        assert title in page


def test_one_that_was_not_handed_in_is_refused_before_a_folder_is_made(sites, tmp_path):
    with pytest.raises(ConfigError, match='^federation.components: "counter" is not known here; known are: generator'):
        simulate(config_of(sites), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_resumed_without_it(finished):
    with pytest.raises(ConfigError, match='"counter" is not known here'):
        resume(finished.path)


def test_what_it_refuses_of_the_sites_is_said_before_a_folder_is_made(sites, tmp_path):
    def refuse(config, sites):
        raise ConfigError(f"{len(sites)} sites are too few to count")

    picky = replace(COUNTER, check_sites=refuse)
    with pytest.raises(ConfigError, match="2 sites are too few to count"):
        simulate(config_of(sites), out=tmp_path / "run", components={**SHIPPED, NAME: picky})
    assert not (tmp_path / "run").exists()


def test_a_site_that_does_not_know_it_takes_no_part(sites, tmp_path):
    """The server may know more components than a site."""
    display = Lines()
    with pytest.raises(QuorumError, match="0 sites can take part"):
        federate(config_of(sites, greeting_timeout_s=0.5), tmp_path / "run", components=COMPONENTS, display=display)
    assert "client 1 takes no part: it could not read the request (bad-request" in display.text
