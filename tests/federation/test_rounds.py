"""Rounds on tiny random models: what they compute, exactly."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_federation import (
    Lines,
    assert_same_state,
    client_folders,
    federate,
    is_changed,
    largest_difference,
    node_configs,
    small_site,
    tiny_config,
    with_faults,
    write_small_sites,
)

from fedrag.components.state import initial_state
from fedrag.config.schedule import components_of, rounds_training, trained_components
from fedrag.data.site_folder import load_site
from fedrag.data.writing import write_site
from fedrag.diagnosis.causes import CAUSES
from fedrag.diagnosis.tally import COUNTS
from fedrag.errors import QuorumError
from fedrag.federation.messages import VALIDATE
from fedrag.federation.rounds import result_of
from fedrag.federation.update import add, norm, subtract
from fedrag.grids.in_process import InProcessGrid
from fedrag.models.resident import RoundModels
from fedrag.rag.indexing import build_index
from fedrag.rag.pipeline import retrieve
from fedrag.rag.window import shown_hits
from fedrag.runs.run_folder import RunFolder
from fedrag.seeding import derive_seed
from fedrag.site.client_app import make_client_app
from fedrag.site.steps import train_site
from fedrag.training.optimizer import Progress
from fedrag.training.ralt import answer_examples, train_generator
from fedrag.training.retriever_examples import labelled_examples
from fedrag.training.retriever_training import train_retriever

ARRAY_HEADER = 128  # Flower sends an array as a file of numpy's format

pytestmark = pytest.mark.usefixtures("tiny_home")


@pytest.fixture(scope="module")
def sites(tmp_path_factory, tiny_home) -> Path:
    """Three sites with unequal numbers of questions."""
    return write_small_sites(tmp_path_factory.mktemp("sites"), a=3, b=5, c=4)


def logged_states(run, rounds):
    """Return the global state after each round."""
    return [run_state(run, number) for number in range(rounds + 1)]


def run_state(run, number):
    tensors = load_file(run.path / "checkpoints" / f"round-{number:04d}" / "state.safetensors")
    state = {}
    for key in sorted(tensors):
        kind, component, _, name = key.split("|", 3)
        if kind == "state":
            state.setdefault(component, {})[name] = tensors[key]
    return state


def plain_loop(config, site, subtracting):
    """Train one site round after round, without messages, server or run folder."""
    state = initial_state(config, ("generator", "retriever"))
    for number in range(1, config.federation.rounds + 1):
        models = RoundModels(config, state)
        seed = derive_seed(config.seed, number, site.name, "generator")
        progress = Progress(number - 1, config.federation.rounds)
        index = build_index(models.retriever, site.passages, config.rag.chunk_overlap)
        hits = retrieve(models.retriever, index, [q.question for q in site.train], config.rag.passages)
        passages = {passage.id: passage for passage in site.passages}
        shown = [shown_hits(found, passages, index) for found in hits]
        examples = answer_examples(models.generator, site.train, shown, config.rag)
        learnt = train_generator(
            models.generator, examples, config.generator, seed=seed, progress=progress, received=state["generator"]
        )
        pairs = labelled_examples(models.retriever, site.train, site.passages, config.rag.chunk_overlap)
        seed = derive_seed(config.seed, number, site.name, "retriever")
        found = train_retriever(
            models.retriever, pairs, config.retriever, seed=seed, progress=progress, received=state["retriever"]
        )
        if subtracting:
            state = {
                "generator": add(state["generator"], learnt.update),
                "retriever": add(state["retriever"], found.update),
            }
        else:
            parameters = {
                "generator": models.generator.parameters(),
                "retriever": models.retriever.parameters(),
            }
            state = {c: {n: p.detach().numpy().copy() for n, p in named.items()} for c, named in parameters.items()}
    return state


@pytest.fixture(scope="module")
def alone(tmp_path_factory, sites):
    """One site federated alone for three rounds: (scenario, site, result)."""
    config = tiny_config(sites, data={"only": ["b"]}, federation={"rounds": 3})
    state, _ = federate(config, tmp_path_factory.mktemp("alone") / "run")
    return config, load_site(sites / "b"), state


def test_one_site_federated_alone_is_a_plain_training_loop_bit_for_bit(alone):
    config, site, state = alone
    assert_same_state(state, plain_loop(config, site, subtracting=True))
    assert is_changed(state, initial_state(config, ("generator", "retriever")), "generator")
    assert is_changed(state, initial_state(config, ("generator", "retriever")), "retriever")


def test_one_site_federated_alone_is_training_that_never_subtracts_up_to_rounding(alone):
    config, site, state = alone
    assert largest_difference(state, plain_loop(config, site, subtracting=False)) <= 1e-6


def test_two_sites_with_the_same_data_and_seeds_are_one_site(alone, sites, tmp_path):
    """Seeds come from a site's name: the twins greet with different names and train under one."""
    config, _, state = alone
    config = tiny_config(sites, federation={"rounds": 3})
    nodes = [{"site-name": name, "site-folder": str(sites / "b"), "site-cache": str(tmp_path)} for name in ("x", "y")]

    def train_as_b(message, context, real):
        context.node_config["site-name"] = "b"
        return real(message, context)

    twins, run = federate(config, tmp_path / "run", nodes=nodes, app=with_faults({"x": train_as_b, "y": train_as_b}))
    assert list(run.rounds()[0]["sites"]) == ["x", "y"]
    assert_same_state(twins, state)


def test_sites_with_the_same_data_and_other_names_have_seeds_of_their_own(sites, tmp_path):
    config = tiny_config(sites, generator={"epochs": 3}, federation={"rounds": 1, "schedule": "generator"})
    nodes = [{"site-name": name, "site-folder": str(sites / "b"), "site-cache": str(tmp_path)} for name in ("x", "y")]
    _, run = federate(config, tmp_path / "run", nodes=nodes)
    told = run.rounds()[0]["sites"]
    assert told["x"]["generator.tokens"] == told["y"]["generator.tokens"]
    assert told["x"]["generator.last_loss"] != told["y"]["generator.last_loss"]


class ShuffledGrid(InProcessGrid):
    """Hands out replies in an order of its own."""

    seed = 0

    def pull_messages(self, message_ids):
        waiting = [message_id for message_id in message_ids if message_id in self._waiting]
        chance = random.Random(f"{self.seed} {len(self._waiting)}")
        return super().pull_messages([chance.choice(waiting)] if waiting else [])


def test_any_order_of_arrival_gives_the_same_bits(sites, tmp_path):
    config = tiny_config(sites, federation={"rounds": 1, "keep": "best"})
    expected, expected_run = federate(config, tmp_path / "in-order")
    orders = set()
    for seed in range(3):
        arrived = []
        real = make_client_app()

        def noting(message, context, real=real, arrived=arrived):
            arrived.append(context.node_config["site-name"])
            return real(message, context)

        grid = type("Grid", (ShuffledGrid,), {"seed": seed})
        state, run = federate(config, tmp_path / str(seed), app=noting, grid=grid)
        assert_same_state(state, expected)
        for record, expected_record in zip(run.rounds(), expected_run.rounds(), strict=True):
            for key in ("update_norm", "aggregation_error", "validation", "left_out", "asked"):
                assert record[key] == expected_record[key]
            assert list(record["sites"]) == ["a", "b", "c"]
        orders.add("".join(arrived))
    assert len(orders) > 1


SCHEDULES = {
    "generator": ["g", "g"],
    "retriever": ["r", "r"],
    "joint": ["gr", "gr"],
    "alternate": ["g", "r"],
    "staged": ["r", "g"],
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_each_round_changes_the_components_of_its_schedule_and_no_bit_of_the_other(schedule, sites, tmp_path):
    config = tiny_config(sites, data={"only": ["a"]}, federation={"rounds": 2, "schedule": schedule})
    _, run = federate(config, tmp_path / "run")
    states = logged_states(run, 2)
    for number, trained in enumerate(SCHEDULES[schedule], start=1):
        for component in states[0]:
            assert is_changed(states[number], states[number - 1], component) == (component[0] in trained)
        assert run.rounds()[number - 1]["components"] == [
            component for component in ("generator", "retriever") if component[0] in trained
        ]
    assert {c[0] for c in states[0]} == set("".join(SCHEDULES[schedule]))


def test_a_staged_schedule_can_begin_with_the_generator(sites, tmp_path):
    settings = {"rounds": 3, "schedule": "staged", "stage_first": "generator", "stage_rounds": 2}
    config = tiny_config(sites, data={"only": ["a"]}, federation=settings)
    _, run = federate(config, tmp_path / "run")
    assert [record["components"] for record in run.rounds()] == [["generator"], ["generator"], ["retriever"]]


def site_updates(config, folder):
    """Return each site's difference in the first round, from a federation of that site alone."""
    start = initial_state(config, trained_components(config.federation))
    updates = {}
    for path in client_folders(config):
        nodes = node_configs([path], folder / "caches")
        one = config.model_copy(update={"federation": config.federation.model_copy(update={"rounds": 1})})
        state, _ = federate(one, folder / path.name, nodes=nodes)
        updates[path.name] = {c: subtract(tensors, start[c]) for c, tensors in state.items()}
    return start, updates


@pytest.mark.parametrize(("weighting", "weights"), [("examples", [3, 5, 4]), ("equal", [1, 1, 1])])
def test_the_new_state_is_the_old_one_plus_the_weighted_mean_difference(weighting, weights, sites, tmp_path):
    settings = {"rounds": 1, "schedule": "generator", "weighting": weighting}
    config = tiny_config(sites, generator={"schedule": "constant"}, federation=settings)
    start, updates = site_updates(config, tmp_path / "alone")
    state, run = federate(config, tmp_path / "run")
    differences = [updates[name]["generator"] for name in "abc"]
    for name, tensor in state["generator"].items():
        mean = sum(w * d[name].astype(np.float64) for w, d in zip(weights, differences, strict=True)) / sum(weights)
        np.testing.assert_allclose(tensor, start["generator"][name] + mean, rtol=0, atol=3e-8)
    record = run.rounds()[0]
    assert [record["sites"][name]["generator.examples"] for name in "abc"] == [3, 5, 4]
    assert record["sites"]["b"]["generator.norm"] == pytest.approx(norm(differences[1]), rel=1e-4)


def test_a_fraction_asks_some_sites_drawn_anew_each_round(tmp_path):
    root = write_small_sites(tmp_path / "sites", a=1, b=1, c=1, d=1, e=1)
    config = tiny_config(root, federation={"rounds": 4, "schedule": "generator", "fraction": 0.4})
    _, run = federate(config, tmp_path / "run")
    asked = [record["asked"] for record in run.rounds()]
    assert all(len(names) == 2 and names == sorted(names) for names in asked)
    assert len({tuple(names) for names in asked}) > 1
    assert all(list(record["sites"]) == record["asked"] for record in run.rounds())
    _, again = federate(config, tmp_path / "again")
    assert [record["asked"] for record in again.rounds()] == asked


def test_fedprox_keeps_sites_closer_to_what_they_received(sites, tmp_path):
    norms = []
    for mu in (0.0, 10.0):
        config = tiny_config(
            sites,
            data={"only": ["b"]},
            generator={"epochs": 6, "clip_norm": 1e6},
            retriever={"epochs": 6, "clip_norm": 1e6},
            federation={"rounds": 1, "proximal_mu": mu},
        )
        _, run = federate(config, tmp_path / str(mu))
        norms.append(run.rounds()[0]["update_norm"])
    assert norms[1]["generator"] < 0.9 * norms[0]["generator"]
    assert norms[1]["retriever"] < 0.9 * norms[0]["retriever"]


def test_bfloat16_on_the_wire_halves_the_bytes_and_stays_close(sites, tmp_path):
    only = {"only": ["a", "b"]}
    full, full_run = federate(tiny_config(sites, data=only), tmp_path / "full")
    half, half_run = federate(tiny_config(sites, data=only, federation={"wire": "bfloat16"}), tmp_path / "half")
    weights = sum(t.size for tensors in full.values() for t in tensors.values())
    for run, width in ((full_run, 4), (half_run, 2)):
        for record in run.rounds():
            assert record["bytes_to_each_site"] == width * weights + 2 * ARRAY_HEADER
            assert {told["bytes"] for told in record["sites"].values()} == {width * weights + 2 * ARRAY_HEADER}
    for component, tensors in full.items():
        before = initial_state(tiny_config(sites), (component,))[component]
        moved = norm(subtract(tensors, before))
        # Adam's first steps are as long for small gradients as for large ones: rounding turns some of them.
        assert 0 < norm(subtract(half[component], tensors)) < 0.1 * moved


def test_int8_takes_about_a_quarter_of_the_bytes_back_and_stays_close(sites, tmp_path):
    only = {"only": ["a", "b"]}
    full, full_run = federate(tiny_config(sites, data=only), tmp_path / "full")
    config = tiny_config(sites, data=only, federation={"wire": "int8"})
    rounded, run = federate(config, tmp_path / "int8")
    again, _ = federate(config, tmp_path / "again")
    assert_same_state(again, rounded)
    for record, full_record in zip(run.rounds(), full_run.rounds(), strict=True):
        weights = full_record["bytes_to_each_site"] - 2 * ARRAY_HEADER
        assert record["bytes_to_each_site"] == weights / 2 + 2 * ARRAY_HEADER  # the state, in bfloat16
        assert {told["bytes"] for told in record["sites"].values()} <= {weights * 68 / 256 + 2 * ARRAY_HEADER}
    for component, tensors in full.items():
        before = initial_state(config, (component,))[component]
        moved = norm(subtract(tensors, before))
        assert 0 < norm(subtract(rounded[component], tensors)) < 0.1 * moved


def test_sites_with_the_same_update_round_it_each_in_its_own_way_in_int8(sites, tmp_path):
    """Errors that were the same at all sites would not average out."""
    config = tiny_config(
        sites, federation={"rounds": 1, "schedule": "generator", "wire": "int8"}, generator={"epochs": 2}
    )
    nodes = [{"site-name": name, "site-folder": str(sites / "b"), "site-cache": str(tmp_path)} for name in ("x", "y")]
    sent = []

    def noting(message, context, real):
        reply = real(message, context)
        sent.append(reply.content["update"]["generator"].numpy())
        return reply

    def train_as_b(bench, request, *further):
        return train_site(replace(bench, site=replace(bench.site, name="b")), request, *further)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedrag.site.client_app.train_site", train_as_b)
        federate(config, tmp_path / "run", nodes=nodes, app=with_faults({"x": noting, "y": noting}))
    scales = sent[0].size // 68 * 4  # 4 bytes of 68 a block
    np.testing.assert_array_equal(sent[0][:scales], sent[1][:scales])
    assert (sent[0][scales:] != sent[1][scales:]).mean() > 0.2


def validating_as(scores, per_site=None):
    """Let site a report the next of these scores for its component, and the other sites nothing."""
    left = iter(scores)

    def report(message, context, real):
        reply = real(message, context)
        metrics = reply.content["metrics"]
        for key in metrics:
            if key.endswith(".sum"):
                metrics[key] = float(next(left))
            if key.endswith(".count"):
                metrics[key] = 1.0
        return reply

    return with_faults({"a": report}, VALIDATE)


def test_the_best_validated_round_is_kept_where_it_is_not_the_last(sites, tmp_path):
    config = tiny_config(sites, data={"only": ["a"]}, federation={"rounds": 3, "schedule": "generator", "keep": "best"})
    app = validating_as([-4.0, -3.0, -1.0, -2.0])  # the first of the untouched models
    state, run = federate(config, tmp_path / "run", app=app)
    assert not (run.path / "checkpoints" / "round-0000").exists()  # the last three are kept
    assert [record["validation"] for record in run.rounds()] == [{"generator": s} for s in (-3.0, -1.0, -2.0)]
    assert_same_state(state, run_state(run, 2))
    assert is_changed(state, run_state(run, 3), "generator")
    _, last_run = federate(
        tiny_config(sites, data={"only": ["a"]}, federation={"rounds": 3, "schedule": "generator"}),
        tmp_path / "last",
    )
    assert_same_state(run_state(last_run, 3), run_state(run, 3))
    checkpoint, _ = run.load_checkpoint()
    assert_same_state(result_of(config, checkpoint), state)


def test_the_untouched_models_are_kept_where_no_round_is_better(sites, tmp_path):
    config = tiny_config(sites, data={"only": ["a"]}, federation={"rounds": 2, "schedule": "generator", "keep": "best"})
    display = Lines()
    state, run = federate(config, tmp_path / "run", app=validating_as([-1.0, -1.5, -1.0]), display=display)
    assert_same_state(state, initial_state(config, ["generator"]))
    assert is_changed(state, run_state(run, 2), "generator")
    assert "before the first round: generator validation -1.0000" in display.said
    assert [record["round"] for record in run.rounds()] == [1, 2]


def test_a_run_that_is_interrupted_after_its_start_was_scored_does_not_score_it_again(sites, tmp_path):
    config = tiny_config(sites, data={"only": ["a"]}, federation={"rounds": 1, "schedule": "generator", "keep": "best"})

    def die(message, context, real):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federate(config, tmp_path / "run", app=with_faults({"a": die}))
    scored = RunFolder.open(tmp_path / "run").load_checkpoint()[0].best_scores
    display = Lines()
    federate(config, tmp_path / "run", display=display)
    assert not [line for line in display.said if line.startswith("before the first round")]
    assert RunFolder.open(tmp_path / "run").load_checkpoint()[0].best_scores["generator"] >= scored["generator"]


def test_sites_are_asked_why_answers_are_wrong_before_the_first_round_and_after_the_last(sites, tmp_path):
    settings = {"rounds": 2, "schedule": "generator", "diagnose": True}
    config = tiny_config(sites, data={"only": ["a", "b"]}, federation=settings)
    _, run = federate(config, tmp_path / "run")
    told = run.told_diagnoses
    assert list(told) == ["before", "after"]
    for counts in told.values():
        assert sorted(counts) == ["a", "b"]
        assert all(set(one) == set(COUNTS) for one in counts.values())
        assert all(
            one["questions"] == 2 == one["right"] + sum(one[cause] for cause in CAUSES) for one in counts.values()
        )
    federate(config, tmp_path / "run")
    assert run.told_diagnoses == told


def test_the_best_round_is_chosen_for_each_component(sites, tmp_path):
    """An alternate schedule validates only what it has trained."""
    settings = {"rounds": 4, "schedule": "alternate", "keep": "best"}
    config = tiny_config(sites, data={"only": ["a"]}, federation=settings)
    # Of the untouched models retriever and generator, then generator, retriever, generator, retriever.
    app = validating_as([0.0, -3.0, -2.0, 0.9, -1.0, 0.1])
    state, run = federate(config, tmp_path / "run", app=app)
    assert_same_state({"generator": state["generator"]}, {"generator": run_state(run, 3)["generator"]})
    assert_same_state({"retriever": state["retriever"]}, {"retriever": run_state(run, 2)["retriever"]})


def test_validation_is_a_mean_over_all_sites_questions_and_names_who_failed(sites, tmp_path):
    """Three questions at one site weigh more than one at another."""

    def say(total, count):
        def report(message, context, real):
            reply = real(message, context)
            reply.content["metrics"].clear()
            reply.content["metrics"].update({"metric.generator.sum": total, "metric.generator.count": count})
            return reply

        return report

    def fail(message, context, real):
        raise RuntimeError("the disk of c is gone")

    config = tiny_config(sites, federation={"rounds": 1, "schedule": "generator", "validate_every": 1})
    app = with_faults({"a": say(-6.0, 3.0), "b": say(-4.0, 1.0), "c": fail}, VALIDATE)
    display = Lines()
    _, run = federate(config, tmp_path / "run", app=app, display=display)
    assert run.rounds()[0]["validation"] == {"generator": -2.5}
    assert "c is left out of the validation of round 1: its client failed (RuntimeError)" in display.said


def test_validation_runs_as_often_as_asked_and_after_the_last_round(sites, tmp_path):
    settings = {"rounds": 3, "schedule": "generator", "validate_every": 2}
    _, run = federate(tiny_config(sites, data={"only": ["a"]}, federation=settings), tmp_path / "run")
    assert [bool(record["validation"]) for record in run.rounds()] == [False, True, True]


def test_the_sites_receive_the_tensors_that_count(sites, tmp_path):
    config = tiny_config(sites, federation={"rounds": 1})
    display = Lines()
    state, run = federate(config, tmp_path / "run", display=display)
    assert "the result was delivered to 3 of 3 sites" in display.said
    for name in "abc":
        folder = run.path / "sites" / name / "models" / "tiny"
        for component, tensors in state.items():
            assert_same_state(
                {component: load_file(folder / f"{component}.safetensors")}, {component: dict(sorted(tensors.items()))}
            )
        assert (folder / "scenario.toml").read_text() == config.to_toml()


def test_the_delivery_is_exact_also_where_rounds_go_in_bfloat16(sites, tmp_path):
    settings = {"rounds": 1, "schedule": "generator", "wire": "bfloat16"}
    state, run = federate(tiny_config(sites, data={"only": ["a"]}, federation=settings), tmp_path / "run")
    delivered = load_file(run.path / "sites" / "a" / "models" / "tiny" / "generator.safetensors")
    assert_same_state({"generator": delivered}, {"generator": dict(sorted(state["generator"].items()))})


def test_nothing_is_delivered_where_the_scenario_says_so(sites, tmp_path):
    settings = {"rounds": 1, "schedule": "generator", "deliver": False}
    _, run = federate(tiny_config(sites, data={"only": ["a"]}, federation=settings), tmp_path / "run")
    assert not (run.path / "sites" / "a" / "models").exists()


def test_a_run_that_ended_before_the_delivery_delivers_when_it_is_resumed(sites, tmp_path, monkeypatch):
    """A process killed after the last checkpoint used to leave the sites without the models for good."""
    config = tiny_config(sites, federation={"rounds": 1, "schedule": "generator"})
    with monkeypatch.context() as patch:
        patch.setattr("fedrag.federation.rounds.deliver", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            federate(config, tmp_path / "run")
    assert not (tmp_path / "run" / "sites" / "a" / "models").exists()
    state, run = federate(config, tmp_path / "run")
    assert len(run.rounds()) == 1
    delivered = load_file(run.path / "sites" / "a" / "models" / "tiny" / "generator.safetensors")
    assert_same_state({"generator": delivered}, {"generator": dict(sorted(state["generator"].items()))})


def _interrupt(*arguments):
    raise KeyboardInterrupt


def test_a_site_without_training_questions_sits_out_by_name(sites, tmp_path):
    config = tiny_config(tmp_path / "sites", federation={"rounds": 1, "schedule": "generator"})
    write_small_sites(tmp_path / "sites", a=3, b=5)
    write_site(tmp_path / "sites" / "idle", small_site("idle", train=0))
    display = Lines()
    state, run = federate(config, tmp_path / "run", display=display)
    assert "idle sits out: it has no training questions" in display.said
    assert run.rounds()[0]["asked"] == ["a", "b"]
    alone, _ = federate(
        tiny_config(tmp_path / "sites", data={"hold_out": ["idle"]}, federation=config.federation.model_dump()),
        tmp_path / "alone",
    )
    assert_same_state(state, alone)


def unlabelled(site):
    questions = tuple(type(q)(q.id, q.question, q.answers) for q in site.train)
    return type(site)(site.name, site.passages, questions)


def test_a_site_without_labels_is_asked_only_in_rounds_that_need_none(tmp_path):
    """It used to be asked, and its refusal counted against the quorum."""
    for name, site in {"a": small_site("a"), "b": unlabelled(small_site("b"))}.items():
        write_site(tmp_path / "sites" / name, site)
    config = tiny_config(tmp_path / "sites", federation={"rounds": 2, "schedule": "alternate", "quorum": 1.0})
    _, run = federate(config, tmp_path / "run")
    assert [record["asked"] for record in run.rounds()] == [["a", "b"], ["a"]]
    display = Lines()
    only = tiny_config(tmp_path / "sites", federation={"rounds": 1, "schedule": "retriever", "quorum": 1.0})
    _, run = federate(only, tmp_path / "only", display=display)
    assert "b sits out: it has no labelled training questions" in display.said
    assert run.rounds()[0]["asked"] == ["a"]


def test_a_round_that_no_site_can_train_stops_the_run_with_one_sentence(tmp_path):
    write_site(tmp_path / "sites" / "a", unlabelled(small_site("a")))
    config = tiny_config(tmp_path / "sites", federation={"rounds": 2, "schedule": "alternate"})
    with pytest.raises(QuorumError, match="round 2: no site has questions that train the retriever"):
        federate(config, tmp_path / "run")


def test_a_site_without_labels_still_trains_the_generator_in_a_joint_round(tmp_path):
    for name, site in {"a": small_site("a"), "b": unlabelled(small_site("b"))}.items():
        write_site(tmp_path / "sites" / name, site)
    config = tiny_config(tmp_path / "sites", federation={"rounds": 1})
    start, updates = site_updates(config, tmp_path / "alone")
    state, run = federate(config, tmp_path / "run")
    assert "retriever.examples" not in run.rounds()[0]["sites"]["b"]
    assert_same_state(
        {"retriever": state["retriever"]}, {"retriever": add(start["retriever"], updates["a"]["retriever"])}
    )


def test_the_learning_rate_runs_over_all_rounds_of_a_component_and_does_not_restart():
    config = tiny_config(federation={"rounds": 4, "schedule": "alternate"}).federation
    assert [components_of(config, number) for number in range(1, 5)] == [("generator",), ("retriever",)] * 2
    assert [rounds_training(config, "retriever", before=number) for number in range(1, 6)] == [0, 0, 1, 1, 2]


def test_the_log_of_a_round_holds_what_each_site_told_and_the_bytes_both_ways(sites, tmp_path):
    state, run = federate(tiny_config(sites), tmp_path / "run")
    assert [record["round"] for record in run.rounds()] == [1, 2]
    size = {c: sum(t.size for t in tensors.values()) for c, tensors in state.items()}
    for record in run.rounds():
        assert record["bytes_to_each_site"] == 4 * sum(size.values()) + 2 * ARRAY_HEADER
        assert record["seconds"] > 0
        assert record["left_out"] == {}
        assert set(record["aggregation_error"]) == {"generator", "retriever"}
        assert 0 < record["update_norm"]["generator"] < 10
        for told in record["sites"].values():
            assert told["bytes"] == 4 * sum(size.values()) + 2 * ARRAY_HEADER
            for component in ("generator", "retriever"):
                for key in ("loss", "last_loss", "norm", "steps", "tokens", "examples"):
                    assert told[f"{component}.{key}"] >= 0
    assert run.rounds()[1]["aggregation_error"]["generator"] > 0
