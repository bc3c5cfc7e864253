"""The steps of a site, called as functions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny_federation import small_site, tiny_config

from fedrag.components import retriever_steps
from fedrag.components.state import initial_state
from fedrag.components.work import Workbench
from fedrag.config.scenario import Config
from fedrag.data.chunking import chunk_passages
from fedrag.data.importers.triplets import import_triplets
from fedrag.data.questions import question_counts
from fedrag.errors import ConfigError
from fedrag.federation.messages import Reply, Request
from fedrag.federation.update import manifest_of, unflatten
from fedrag.models.resident import RoundModels
from fedrag.rag.indexing import build_index
from fedrag.rag.pipeline import prompt_builder
from fedrag.site import steps
from fedrag.site.acceptance import accept_delivery
from fedrag.site.site_paths import SitePaths
from fedrag.site.steps import train_site
from fedrag.site.validation import validate_site

pytestmark = pytest.mark.usefixtures("tiny_home")

BOTH = ("generator", "retriever")


@pytest.fixture
def work(tmp_path):
    """Return a function that makes (bench, request) for one site."""

    def make(site=None, components=BOTH, round_number=1, **settings):
        config = tiny_config(**settings)
        request = Request(config.to_toml(), round_number, initial_state(config, BOTH), components)
        return Workbench(site or small_site("a"), tmp_path / "cache", tmp_path / "scores", config), request

    return make


def test_a_site_sends_the_difference_of_each_component_it_was_asked_for(work):
    bench, request = work()
    reply = train_site(bench, request)
    assert list(reply.update) == ["generator", "retriever"]
    assert reply.num_examples == {"generator": 4, "retriever": 4}
    for component, flat in reply.update.items():
        assert flat.dtype == np.float32
        assert flat.shape == (manifest_of(request.state[component]).size,)
        assert np.linalg.norm(flat.astype(np.float64)) == pytest.approx(reply.metrics[f"{component}.norm"])


def test_the_difference_is_what_the_adapter_has_now_minus_what_it_received(work):
    bench, request = work(components=("generator",))
    reply = train_site(bench, request)
    models = RoundModels(bench.config, request.state)
    models._set.add("generator")  # as it was left by the training
    difference = unflatten(reply.update["generator"], manifest_of(request.state["generator"]))
    for name, parameter in models.generator.parameters().items():
        now = torch.from_numpy(request.state["generator"][name] + difference[name])
        torch.testing.assert_close(parameter.detach(), now, rtol=0, atol=1e-7)


def test_a_site_keeps_nothing_between_rounds(work):
    """The same request gives the same bits, whatever was trained in this process before."""
    bench, request = work()
    first = train_site(bench, request)
    train_site(*work(site=small_site("b", "south"), round_number=2))
    again = train_site(bench, request)
    for component, flat in first.update.items():
        np.testing.assert_array_equal(again.update[component], flat)


def test_the_base_models_are_bit_identical_after_a_round(work):
    bench, request = work()
    models = RoundModels(bench.config, request.state)
    parts = {"generator": models.generator.model, "retriever": models.retriever.encoder}
    before = {
        (part, name): tensor.clone()
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
        if ".lora_" not in name
    }
    train_site(bench, request)
    for (part, name), tensor in before.items():
        assert torch.equal(parts[part].state_dict()[name], tensor)


def test_another_round_is_another_order_of_examples(work):
    one_by_one = {"batch_size": 1}
    rounds = [train_site(*work(components=("generator",), round_number=n, generator=one_by_one)) for n in (1, 2)]
    assert len({reply.metrics["generator.last_loss"] for reply in rounds}) == 2


def test_a_site_without_questions_for_the_round_refuses(work):
    site = small_site("a")
    unlabelled = replace(site, train=tuple(replace(q, passage_ids=()) for q in site.train))
    assert train_site(*work(unlabelled, ("retriever",))) == Reply(refusal="no-examples")
    assert train_site(*work(replace(site, train=()))) == Reply(refusal="no-examples")
    assert list(train_site(*work(unlabelled)).update) == ["generator"]


def test_a_question_with_two_labelled_passages_counts_once(work):
    site = small_site("a", train=2)
    twice = replace(site.train[0], passage_ids=tuple(passage.id for passage in site.passages[:2]))
    reply = train_site(*work(replace(site, train=(twice, site.train[1])), ("retriever",)))
    assert reply.num_examples == {"retriever": 2}


def test_the_retriever_learns_from_the_negatives_that_a_triplet_names(work, tmp_path):
    """With the default settings they were read, kept and not used."""
    rows = [{"anchor": f"When is {n}?", "positive": f"{n} is at noon.", "negative": f"{n} is lost."} for n in "abc"]
    (tmp_path / "pool.json").write_text(json.dumps(rows))
    (site,) = import_triplets(tmp_path / "pool.json", fractions=(1.0, 0.0, 0.0)).sites
    without = replace(site, train=tuple(replace(question, hard_negative_ids=()) for question in site.train))

    def update(trained, **contrastive):
        settings = {"loss": "contrastive", "contrastive": contrastive}
        return train_site(*work(trained, ("retriever",), retriever=settings)).update["retriever"]

    assert np.abs(update(site) - update(without)).max() > 1e-6
    np.testing.assert_array_equal(update(site, named_negatives=0), update(without))


@pytest.mark.parametrize(
    ("components", "retriever", "indexes"),
    [
        (("retriever",), {}, 0),
        (("retriever",), {"contrastive": {"hard_negatives": 1}}, 1),
        (("retriever",), {"loss": "lsr", "lsr": {"candidates": 3}}, 1),
        (("retriever",), {"loss": "lsr", "lsr": {"candidates": 3, "candidates_from": "current"}}, 1),
        (("generator",), {}, 1),
        (BOTH, {"loss": "lsr", "lsr": {"candidates": 3, "candidates_from": "current"}}, 1),
    ],
)
def test_passages_are_indexed_once_and_only_in_rounds_that_retrieve(work, monkeypatch, components, retriever, indexes):
    built = []
    for module in (steps, retriever_steps):
        monkeypatch.setattr(module, "build_index", lambda *given: built.append(given) or build_index(*given))
    bench, request = work(components=components, retriever=retriever)
    assert list(train_site(bench, request).update) == [c for c in BOTH if c in components]
    assert len(built) == indexes


@pytest.mark.parametrize("template", ["Read: {context_str}\nQ: {query_str}\nA: ", "Q: {query_str}\n{context_str}\nA: "])
def test_both_components_learn_from_prompts_of_ones_own(work, template):
    """The template stands in the scenario that the request carries: no site can train with another."""
    lsr = {"loss": "lsr", "lsr": {"candidates": 3}}
    bench, request = work(rag={"template": template}, retriever=lsr)
    assert Config.from_toml(request.scenario).rag.template == template
    asked, usual = train_site(bench, request), train_site(*work(retriever=lsr))
    assert asked.num_examples == usual.num_examples
    for component, flat in asked.update.items():
        assert np.linalg.norm(flat) > 0
        assert not np.array_equal(flat, usual.update[component])


def test_scores_are_computed_once_for_a_generator_that_stays_the_same(work):
    bench, request = work(components=("retriever",), retriever={"loss": "lsr", "lsr": {"candidates": 3}})
    seen = []
    told = replace(bench, on_progress=lambda what, done, total: seen.append(what))
    first = train_site(told, request)
    files = sorted(bench.scores.rglob("*.npy"))
    stamps = [file.stat().st_mtime_ns for file in files]
    again = train_site(told, request)
    assert files
    assert sorted(bench.scores.rglob("*.npy")) == files
    assert [file.stat().st_mtime_ns for file in files] == stamps
    np.testing.assert_array_equal(first.update["retriever"], again.update["retriever"])
    assert "score" in seen


def test_validation_sums_reciprocal_ranks_and_log_probabilities(work):
    """Against ranks from plain dot products, and the language model's own loss on one example at a time."""
    bench, request = work(rag={"prompt_tokens": 1024})  # room for whole passages
    site = bench.site
    told = validate_site(bench, request).metrics
    models = RoundModels(bench.config, request.state)
    retriever, generator = models.retriever, models.generator.model
    chunks = chunk_passages(site.passages, retriever.encoder.tokenizer, retriever.chunk_tokens, 32)
    vectors = retriever.encode_passages([chunk.text for chunk in chunks])
    builder = prompt_builder(models.generator, bench.config.rag)
    by_id = {passage.id: passage for passage in site.passages}
    ranks, log_probability, tokens = 0.0, 0.0, 0
    for question in site.validation:
        scores = vectors @ retriever.encode_queries([question.question])[0]
        best = {id: max(s for s, c in zip(scores, chunks, strict=True) if c.passage_id == id) for id in by_id}
        ranked = sorted(best, key=lambda id: -best[id])
        ranks += max(1 / (1 + ranked.index(id)) for id in question.passage_ids)
        prompt = builder.example(question.question, [by_id[id].full_text for id in ranked[:2]]).prompt
        answer = builder.answer(question.answers[0], end=True)
        ids = torch.tensor([prompt + answer])
        labels = torch.tensor([[-100] * len(prompt) + answer])
        with torch.no_grad():
            log_probability -= generator(input_ids=ids, labels=labels).loss.item() * len(answer)
        tokens += len(answer)
    assert told == {
        "retriever.sum": pytest.approx(ranks),
        "retriever.count": len(site.validation),
        "generator.sum": pytest.approx(log_probability, rel=1e-5),
        "generator.count": tokens,
    }


def test_validation_of_one_component_tells_of_that_one_alone(work):
    assert set(validate_site(*work(components=("retriever",))).metrics) == {"retriever.sum", "retriever.count"}
    assert set(validate_site(*work(components=("generator",))).metrics) == {"generator.sum", "generator.count"}
    nothing = replace(small_site("a"), validation=())
    assert validate_site(*work(nothing)) == Reply(refusal="no-examples")


def test_a_delivery_lies_in_the_sites_cache_beside_the_one_before(work):
    bench, request = work()
    accept_delivery(bench, request)
    newer = {c: {n: t + 1 for n, t in tensors.items()} for c, tensors in request.state.items()}
    assert accept_delivery(bench, replace(request, state=newer)) == Reply(metrics={"delivered": 2})
    for place, state in {"tiny": request.state, "tiny.2": newer}.items():
        folder = bench.cache / "models" / place
        assert sorted(path.name for path in folder.iterdir()) == [
            "generator.safetensors",
            "retriever.safetensors",
            "scenario.toml",
        ]
        for component, tensors in state.items():
            found = load_file(folder / f"{component}.safetensors")
            for name, tensor in tensors.items():
                np.testing.assert_array_equal(found[name], tensor)


def test_a_site_s_own_settings_win_over_what_the_scenario_says(tmp_path, tiny_home):
    node = {"site-folder": str(tmp_path / "data"), "site-name": "clinic", "site-cache": str(tmp_path / "cache")}
    settings = SitePaths.from_node_config(node, tiny_config())
    cache = tmp_path / "cache"
    assert settings == SitePaths("clinic", tmp_path / "data", cache, cache / "answer-scores", cache / "indexes")
    settings = SitePaths.from_node_config({"site-folder": str(tmp_path / "data")}, tiny_config())
    assert (settings.name, settings.cache) == ("data", tiny_home / "sites" / "data")


def test_a_numbered_client_takes_the_site_of_that_place_in_order_of_name():
    names = [SitePaths.from_node_config({"partition-id": n}, tiny_config()).name for n in range(3)]
    assert names == ["east", "north", "south"]
    held_out = tiny_config(data={"hold_out": ["north"]})
    assert SitePaths.from_node_config({"partition-id": 1}, held_out).name == "south"
    with pytest.raises(ConfigError, match="there are 2 sites, but this is simulated client 3"):
        SitePaths.from_node_config({"partition-id": 2}, held_out)
    with pytest.raises(ConfigError, match="names no data"):
        SitePaths.from_node_config({}, held_out)


def pairs_and(answered):
    """Return a small site of which so many training questions, and half its validation, have an answer."""
    site = small_site("a")
    bare = [replace(question, answers=()) for question in site.train[answered:]]
    validation = (site.validation[0], replace(site.validation[1], answers=()))
    return replace(site, train=(*site.train[:answered], *bare), validation=validation)


@pytest.mark.parametrize("loss", ["contrastive", "both"])
def test_a_question_without_an_answer_trains_the_retriever_alone(work, loss):
    site = pairs_and(answered=1)
    reply = train_site(*work(site, retriever={"loss": loss}))
    assert reply.num_examples == {"generator": 1, "retriever": 4}
    assert all(count <= question_counts(site)["train_questions"] for count in reply.num_examples.values())
    assert train_site(*work(site, ("retriever",), retriever={"loss": "lsr"})).num_examples == {"retriever": 1}


def test_of_a_site_without_any_answer_the_generator_learns_nothing(work):
    site = pairs_and(answered=0)
    assert train_site(*work(site, ("generator",))) == Reply(refusal="no-examples")
    assert train_site(*work(site, retriever={"loss": "contrastive"})).num_examples == {"retriever": 4}


def test_a_validation_counts_the_tokens_of_answers_and_every_labelled_question(work):
    whole, site = small_site("a"), pairs_and(answered=4)
    told = validate_site(*work(site)).metrics
    first = validate_site(*work(replace(whole, validation=whole.validation[:1]))).metrics
    assert told["generator.count"] == first["generator.count"] > 0
    assert told["generator.sum"] == pytest.approx(first["generator.sum"], rel=1e-5)
    assert told["retriever.count"] == 2
    bare = replace(site, validation=site.validation[1:])
    assert validate_site(*work(bare)).metrics["generator.count"] == 0
