"""Many questions in a pass give the clipped sum that one after the other gives."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from test_private_steps import PASSAGES, flat, generator_examples, optimizer_of

from fedrag.config.training_settings import GeneratorConfig
from fedrag.models.adapter_rows import current_copies, weights_by_row
from fedrag.passes.checkpointing import _contexts, layers_checkpointed
from fedrag.training import private_generator, private_retriever
from fedrag.training.retriever_examples import RetrieverExample
from fedrag.training.unit_gradients import UnitGradients, plan_units

QUESTIONS = (
    "Where?",
    "How long does the dough rest before the bread is baked?",
    "What does it cost?",
    "Where does tram line 3 run to on the days on which the zoo is open?",
    "Who sits on the roof?",
    "How much is the repair of a tyre that is flat?",
)
SETTINGS: dict[str, dict[str, Any]] = {
    "lsr": {"loss": "lsr", "lsr": {"tau_r": 0.05, "tau_lm": 0.1}},
    "contrastive": {"loss": "contrastive", "contrastive": {"side": "query", "scale": 20.0, "hard_negatives": 2}},
    "guided": {
        "loss": "contrastive",
        "contrastive": {"side": "query", "scale": 20.0, "hard_negatives": 2, "guide": "untouched"},
    },
}


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute in 64 bits all through: what asks for 32 bits gets 64."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(usual)


def examples_of_retriever() -> list[RetrieverExample]:
    """Questions of mixed lengths, with two to four candidates."""
    made = []
    for i, question in enumerate(QUESTIONS):
        candidates = tuple(PASSAGES[(i + k) % 4] for k in range(2 + i % 3))
        made.append(
            RetrieverExample(
                question,
                frozenset({PASSAGES[i % 4].passage_id}),
                PASSAGES[i % 4],
                candidates[1:],
                candidates,
                tuple(-0.3 * (k + 1) ** (1 + i % 2) for k in range(len(candidates))),
            )
        )
    return made


def units_of_three_subjects(examples: Sequence[Any]) -> list[list[Any]]:
    """Two subjects with several questions, and one question that stands alone."""
    return [[examples[0], examples[3], examples[1]], [examples[2]], [examples[4], examples[5]]]


def shaken(model: Any) -> Any:
    """Let no gradient be zero by chance: B begins at zero."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters().values():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model


def gradients_of_retriever(retriever: Any, wide: bool) -> UnitGradients[RetrieverExample]:
    if wide:
        retriever.learner.double()
        encode = retriever.encode_passages
        retriever.encode_passages = lambda texts: encode(texts).astype(np.float64)
    return private_retriever.unit_gradients(
        retriever, optimizer_of(retriever), examples_of_retriever(), retriever.config
    )


def passes_of(retriever: Any) -> list[int]:
    """Return a list that fills with the number of questions of each pass."""
    passes: list[int] = []
    embed = retriever.embed_queries
    retriever.embed_queries = lambda texts: passes.append(len(texts)) or embed(texts)
    return passes


def one_by_one(gradients: UnitGradients[Any], units: Sequence[Sequence[Any]], clip_norm: float) -> np.ndarray:
    """The clipped sum by torch's own backward pass of each example, in numpy."""
    total = 0.0
    for unit in units:
        alone = []
        for example in unit:
            found = torch.autograd.grad(gradients.loss_of([example]), gradients.optimizer.parameters)
            alone.append(np.concatenate([part.double().numpy().ravel() for part in found]))
        mean = np.mean(alone, axis=0)
        total = total + mean * min(1.0, clip_norm / np.linalg.norm(mean))
    return np.asarray(total)


def check_against_one_by_one(gradients: UnitGradients[Any], examples: Sequence[Any], tolerance: float) -> None:
    assert gradients.rows is not None
    units = units_of_three_subjects(examples)
    norms = [np.linalg.norm(one_by_one(gradients, [unit], 1e9)) for unit in units]
    for clip_norm in (1e9, float(np.median(norms))):  # nothing is clipped; about half is
        expected = one_by_one(gradients, units, clip_norm)
        with gradients.ready():
            found = flat(gradients.clipped_sum(units, clip_norm))
        assert np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("wide", [True, False])
def test_the_clipped_sum_of_a_pass_is_that_of_one_by_one_retriever(load_retriever, request, monkeypatch, kind, wide):
    if wide:
        request.getfixturevalue("in_float64")
        monkeypatch.setattr("fedrag.training.unit_gradients._ROUNDING", 0.0)
    gradients = gradients_of_retriever(shaken(load_retriever(**SETTINGS[kind])), wide)
    # In 32 bits sums over tokens are added up in another order: some units of the last of 24 bits, 6e-8.
    check_against_one_by_one(gradients, examples_of_retriever(), 1e-9 if wide else 1e-5)


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
@pytest.mark.parametrize("wide", [True, False])
def test_the_clipped_sum_of_a_pass_is_that_of_one_by_one_ralt(load_generator, request, monkeypatch, kind, wide):
    generator = shaken(load_generator(kind))
    if wide:
        request.getfixturevalue("in_float64")
        monkeypatch.setattr("fedrag.training.unit_gradients._ROUNDING", 0.0)
        generator.model.double()
    gradients = private_generator.unit_gradients(generator, optimizer_of(generator), GeneratorConfig())
    check_against_one_by_one(gradients, generator_examples(generator) * 2, 1e-9 if wide else 1e-5)


def test_the_rows_of_a_pass_are_told_apart_in_one_forward_pass(load_retriever):
    retriever = shaken(load_retriever(**SETTINGS["lsr"]))
    gradients = gradients_of_retriever(retriever, wide=False)
    passes = passes_of(retriever)
    with gradients.ready():
        gradients.clipped_sum(units_of_three_subjects(examples_of_retriever()), 1.0)
    assert passes == [6]


def test_a_subject_larger_than_a_pass_is_still_clipped_as_a_whole(load_retriever, monkeypatch):
    retriever = shaken(load_retriever(**SETTINGS["lsr"]))
    gradients = gradients_of_retriever(retriever, wide=False)
    units = [examples_of_retriever(), examples_of_retriever()[:1]]
    monkeypatch.setattr(
        "fedrag.training.unit_gradients._NUMBERS", 2 * sum(m.numel() for m in gradients.optimizer.masters)
    )
    jobs = gradients.jobs(units)
    assert sorted(len(job[0]) for job in jobs) == [1, 6]
    passes = passes_of(retriever)
    with gradients.ready():
        found = sum(flat(gradients.clipped_sum(job, 0.01)) for job in jobs)
    assert max(passes) == 2
    assert sum(passes) == 7
    np.testing.assert_allclose(found, one_by_one(gradients, units, 0.01), rtol=1e-4, atol=1e-7)


def test_an_example_that_is_not_finite_spoils_no_other(load_retriever):
    retriever = shaken(load_retriever(**SETTINGS["lsr"]))
    examples = examples_of_retriever()
    broken = RetrieverExample("Who?", candidates=PASSAGES[:2], answer_scores=(math.nan, -1.0))
    gradients = private_retriever.unit_gradients(
        retriever, optimizer_of(retriever), [*examples, broken], retriever.config
    )
    with gradients.ready():
        found = flat(gradients.clipped_sum([examples[:2], [broken]], 1.0))
    np.testing.assert_allclose(found, one_by_one(gradients, [examples[:2]], 1.0), rtol=1e-4, atol=1e-6)


def test_what_stands_beside_an_example_changes_nothing_but_rounding(load_generator):
    """Padding does not leak: a long neighbour adds tokens to each row."""
    generator = shaken(load_generator())
    gradients = private_generator.unit_gradients(generator, optimizer_of(generator), GeneratorConfig())
    short, *others = sorted(generator_examples(generator), key=lambda example: example.length)
    with gradients.ready():
        beside = [part[0] for part in gradients.of_examples([short, *others])]
    alone = [part[0] for part in gradients.of_examples([short])]
    np.testing.assert_allclose(flat(beside), flat(alone), rtol=1e-3, atol=1e-6)


def test_layers_that_compute_again_give_the_same_gradients(load_generator):
    generator = shaken(load_generator())
    gradients = private_generator.unit_gradients(generator, optimizer_of(generator), GeneratorConfig())
    units = units_of_three_subjects(generator_examples(generator) * 2)
    with gradients.ready():
        usual = flat(gradients.clipped_sum(units, 1.0))
        with layers_checkpointed(generator.model):
            again = flat(gradients.clipped_sum(units, 1.0))
    np.testing.assert_allclose(again, usual, rtol=1e-5, atol=1e-8)


def test_a_layer_that_computes_again_in_another_thread_finds_the_weights_of_its_rows():
    """On a GPU the backward pass has a thread of its own."""
    copies: dict[Any, torch.Tensor] = {}
    with weights_by_row(copies):
        _, again = _contexts()

    def seen() -> object:
        with again:
            return current_copies()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(seen).result() is copies


def test_a_pass_that_could_lie_crosswise_is_halved(load_retriever):
    """As many tokens as rows: nothing tells which is which."""
    retriever = shaken(load_retriever(**SETTINGS["lsr"]))
    gradients = gradients_of_retriever(retriever, wide=False)
    example = examples_of_retriever()[0]
    tokens = int(retriever.query_features([example.question])["attention_mask"].sum())
    passes = passes_of(retriever)
    with gradients.ready():
        found = gradients.of_examples([example] * tokens)
    assert passes == [tokens, tokens // 2, tokens - tokens // 2]
    alone = gradients.of_examples([example])
    for own, one in zip(found, alone, strict=True):
        assert len(own) == tokens
        torch.testing.assert_close(own, one.expand_as(own))


def test_the_model_computes_as_before_afterwards(load_retriever):
    retriever = shaken(load_retriever(**SETTINGS["lsr"]))
    before = retriever.encode_queries(QUESTIONS)
    classes = [type(module) for module in retriever.learner.modules()]
    with gradients_of_retriever(retriever, wide=False).ready():
        assert classes != [type(module) for module in retriever.learner.modules()]
    assert classes == [type(module) for module in retriever.learner.modules()]
    assert np.array_equal(before, retriever.encode_queries(QUESTIONS))


@pytest.mark.parametrize("side", ["passages", "weights"])
def test_what_cannot_be_told_apart_by_row_is_read_one_by_one(load_retriever, side):
    """Passages that are trained belong to several questions; all weights are more than can be kept for each row."""
    changed = {"lsr": {"side": "both"}} if side == "passages" else {"weights": "full"}
    retriever = load_retriever(loss="lsr", **changed)
    assert gradients_of_retriever(retriever, wide=False).rows is None


def test_dropout_is_drawn_for_each_row(load_retriever):
    """With dropout two rows of the same question differ; without, they do not."""
    retriever = shaken(load_retriever(**SETTINGS["lsr"]))
    gradients = gradients_of_retriever(retriever, wide=False)
    example = examples_of_retriever()[1]
    with gradients.ready():
        plain = gradients.of_examples([example] * 2)
        for module in retriever.learner.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.3
        retriever.learner.train(True)
        drawn = gradients.of_examples([example] * 2)
        retriever.learner.train(False)
    assert all(torch.allclose(part[0], part[1], atol=1e-6) for part in plain)
    assert any(not torch.allclose(part[0], part[1], atol=1e-3) for part in drawn)


def test_a_group_of_units_is_within_tokens_and_rows():
    chance = np.random.default_rng(0)
    sizes = [[int(n) for n in chance.integers(1, 40, chance.integers(1, 5))] for _ in range(200)]
    plan = plan_units(sizes, 128, 8)
    assert sorted(unit for group in plan for unit in group) == list(range(200))
    for group in plan:
        rows = [size for unit in group for size in sizes[unit]]
        assert len(group) == 1 or (max(rows) * len(rows) <= 128 and len(rows) <= 8)
    assert any(len(group) > 1 for group in plan)
