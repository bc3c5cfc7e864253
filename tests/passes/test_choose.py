"""The choice of paths: what each trait leads to, and the reason why no faster path is taken."""

from __future__ import annotations

import logging
from dataclasses import fields

import pytest
import torch

from fedrag.passes.choose import Traits, paths_of, reading_text, traits_of
from fedrag.passes.reading import reader_of


def told(traits: Traits) -> tuple[str, ...]:
    paths = paths_of(traits)
    texts = [reading_text({"": path.facts()}) for path in (paths.training, paths.scoring, paths.decoding)]
    return tuple(text.removeprefix("passes:  ") for text in texts)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("traits", "training", "scoring", "decoding"),
    [
        (Traits(), "tree, 2 at a time", "tree, 2 at a time", "shared, 2 at a time"),
        (
            Traits(dropout=True),
            "plain, 1 at a time (no tree: dropout; no threads: dropout)",
            "shared, 2 at a time (no tree: dropout)",
            "shared, 2 at a time",
        ),
        (
            Traits(windowed=True),
            "plain, 2 at a time (no tree: window)",
            "plain, 2 at a time (no tree: window)",
            "plain, 1 at a time (no threads: window)",
        ),
        (
            Traits(seq2seq=True, dropout=True),
            "plain, 1 at a time (no tree: seq2seq; no threads: dropout)",
            "plain, 2 at a time (no tree: seq2seq)",
            "plain, 1 at a time (no threads: seq2seq)",
        ),
        (
            Traits(dynamic_rope=True),
            "plain, 1 at a time (no tree: rope; no threads: rope)",
            "shared, 1 at a time (no tree: rope; no threads: rope)",
            "plain, 1 at a time (no threads: rope)",
        ),
        (
            Traits(from_question=True),
            "prefix, 1 at a time (no threads: prefix)",
            "prefix, 1 at a time (no threads: prefix)",
            "prefix, 1 at a time (no threads: prefix)",
        ),
        (
            Traits(other_attention=True),
            "plain, 2 at a time (no tree: attention)",
            "shared, 2 at a time (no tree: attention)",
            "shared, 2 at a time",
        ),
        (
            Traits(every_logit=True),
            "plain, 2 at a time (no tree: logits)",
            "shared, 2 at a time (no tree: logits)",
            "shared, 2 at a time",
        ),
    ],
)
def test_on_a_cpu(traits, training, scoring, decoding):
    assert told(traits) == (training, scoring, decoding)


@pytest.mark.parametrize(
    ("trait", "training"),
    [
        ("packed", "plain, 1 at a time (no cuda graph: 4-bit)"),
        ("large", "plain, 1 at a time (no cuda graph: large)"),
        ("dropout", "plain, 1 at a time (no cuda graph: dropout)"),
        ("windowed", "plain, 1 at a time (no cuda graph: window)"),
        ("dynamic_rope", "plain, 1 at a time (no cuda graph: rope)"),
        ("from_question", "prefix, 1 at a time (no cuda graph: prefix)"),
        (None, "cuda graph, 1 at a time"),
    ],
)
def test_on_a_gpu(trait, training):
    traits = Traits(on_gpu=True, other_attention=True, **({trait: True} if trait else {}))
    assert told(traits)[0] == training
    others = {"from_question": "prefix", "windowed": "plain"}
    assert paths_of(traits).scoring.name == others.get(trait, "shared")
    assert paths_of(traits).decoding.name == ("prefix" if trait == "from_question" else "plain")


def test_one_thread_gives_no_reason_for_having_no_second():
    assert torch.get_num_threads() == 1
    assert told(Traits()) == ("tree, 1 at a time", "tree, 1 at a time", "shared, 1 at a time")


def test_each_path_that_a_trait_rules_out_has_a_reason():
    for field in fields(Traits):
        traits = Traits(**{field.name: True})
        for path in (paths_of(traits).training, paths_of(traits).scoring):
            assert path.name in ("tree", "cuda graph", "prefix") or path.not_taken or traits.on_gpu


def test_what_a_model_is_decides(load_generator):
    assert traits_of(load_generator()) == Traits()
    assert traits_of(load_generator(prefix_bytes=1e6)) == Traits(from_question=True)
    assert traits_of(load_generator("seq2seq")) == Traits(seq2seq=True, dropout=True, every_logit=True)


def test_the_paths_of_a_generator_are_logged_once(load_generator, caplog):
    generator = load_generator()
    with caplog.at_level(logging.INFO, "fedrag.passes"):
        for _ in range(2):
            reader_of(generator).paths  # noqa: B018  # asking is what logs
    assert caplog.messages == ["passes: training, scoring tree, 1 at a time; decoding shared, 1 at a time"]


def test_the_facts_of_a_run_are_plain_data():
    assert paths_of(Traits(dropout=True)).facts() == {
        "training": {"path": "plain", "at_a_time": 1, "not_taken": {"tree": "dropout"}},
        "scoring": {"path": "shared", "at_a_time": 1, "not_taken": {"tree": "dropout"}},
        "decoding": {"path": "shared", "at_a_time": 1, "not_taken": {}},
    }
