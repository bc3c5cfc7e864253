"""Steps with noise: what one question adds is bounded exactly, and nothing else of it is left."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from torch.nn import functional

from fedrag.config.rag_settings import RagConfig
from fedrag.config.training_settings import GeneratorConfig, OptimizerSection
from fedrag.dp.accounting import Event
from fedrag.models.stock import computing_as_stock
from fedrag.passes.threads import thread_pool
from fedrag.rag.pipeline import prompt_builder
from fedrag.training import private_generator, private_retriever
from fedrag.training.losses import lsr_loss
from fedrag.training.optimizer import MasterOptimizer, Progress
from fedrag.training.private_generator import train_generator_privately
from fedrag.training.private_retriever import train_retriever_privately
from fedrag.training.private_steps import NoisedSteps, train_with_noise
from fedrag.training.retriever_examples import PassageText, RetrieverExample
from fedrag.training.unit_gradients import UnitGradients, gradient_norms, sum_clipped
from fedrag.types import Example

TEXTS = (
    "The rye dough rests for eighteen hours.",
    "A flat tyre is repaired for four crowns.",
    "Tram line 3 runs to the zoo.",
    "A copper owl sits on the roof.",
)
PASSAGES = tuple(PassageText(str(number), text) for number, text in enumerate(TEXTS))
QUESTIONS = ("How long does the dough rest?", "What does it cost?", "Where does the tram run?")


def contrastive_examples() -> list[RetrieverExample]:
    return [
        RetrieverExample(text, frozenset({str(i)}), PASSAGES[i], (PASSAGES[3], PASSAGES[(i + 1) % 3]))
        for i, text in enumerate(QUESTIONS)
    ]


def scored_examples() -> list[RetrieverExample]:
    scores = ((-0.2, -1.0, -1.3), (-0.4, -0.9, -0.5), (-2.0, -0.3, -0.7))
    return [
        RetrieverExample(q, candidates=PASSAGES[:3], answer_scores=s) for q, s in zip(QUESTIONS, scores, strict=True)
    ]


def generator_examples(generator: Any) -> list[Example]:
    builder = prompt_builder(generator, RagConfig(prompt_tokens=256))
    answers = ("eighteen hours", "four crowns and a half", "to the zoo")
    return [
        builder.example(question, [], builder.answer(answer, end=True))
        for question, answer in zip(QUESTIONS, answers, strict=True)
    ]


def zeros(count: int) -> bytes:
    """The entropy of a step that draws all units."""
    return b"\x00" * count


def optimizer_of(model: Any, **settings: Any) -> MasterOptimizer:
    usual = {"schedule": "constant", "warmup": 0.0, "learning_rate": 1e-2, "clip_norm": 1e9}
    return MasterOptimizer(model.parameters(), OptimizerSection(**(usual | settings)))


def flat(gradient: list[torch.Tensor]) -> np.ndarray:
    return np.concatenate([part.numpy().ravel() for part in gradient])


def of_one(gradients: UnitGradients, example: Any) -> np.ndarray:
    """The gradient of one example that is read alone."""
    return flat(gradients.of_examples([example]))


def backward_alone(model: Any, loss: torch.Tensor) -> np.ndarray:
    """The gradient of one loss by torch's own backward pass."""
    parameters = list(model.parameters().values())
    for parameter in parameters:
        parameter.grad = None
    loss.backward()
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    return flat([part.detach().clone() for part in found])


def answer_loss_by_hand(generator: Any, example: Example) -> torch.Tensor:
    ids = torch.tensor([[*example.prompt, *example.answer]])
    logits = generator.model(input_ids=ids).logits[0, len(example.prompt) - 1 : -1]
    return functional.cross_entropy(logits, torch.tensor(example.answer))


def contrastive_by_hand(retriever: Any, example: RetrieverExample, scale: float) -> torch.Tensor:
    query = retriever.embed_queries([example.question])
    columns = [example.positive.text, *(passage.text for passage in example.hard_negatives)]
    return functional.cross_entropy(scale * query @ retriever.embed_passages(columns).T, torch.tensor([0]))


def lsr_by_hand(retriever: Any, example: RetrieverExample, tau_r: float, tau_lm: float) -> torch.Tensor:
    query = retriever.embed_queries([example.question])
    with torch.no_grad():
        keys = retriever.embed_passages([passage.text for passage in example.candidates])
    scores = torch.tensor([example.answer_scores]) / tau_lm
    return lsr_loss(query @ keys.T / tau_r, scores, torch.ones_like(scores, dtype=torch.bool))


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_a_questions_gradient_is_that_of_its_own_backward_pass_ralt(load_generator, kind):
    generator = load_generator(kind)
    examples = generator_examples(generator)
    gradients = private_generator.unit_gradients(generator, optimizer_of(generator), GeneratorConfig())
    for example in examples:
        if kind == "causal":
            alone = backward_alone(generator, answer_loss_by_hand(generator, example))
        else:
            out = generator.model(
                input_ids=torch.tensor([example.prompt]), labels=torch.tensor([example.answer]), use_cache=False
            )
            alone = backward_alone(generator, out.loss)
        np.testing.assert_allclose(of_one(gradients, example), alone, rtol=1e-3, atol=1e-6)
        norm = gradient_norms(gradients.of_examples([example]))
        assert norm.item() == pytest.approx(np.linalg.norm(alone), rel=1e-5)


@pytest.mark.parametrize("side", ["query", "both"])
def test_a_questions_gradient_is_that_of_its_own_backward_pass_contrastive(load_retriever, side):
    retriever = load_retriever(loss="contrastive", contrastive={"side": side, "scale": 20.0, "hard_negatives": 2})
    _random_b(retriever)
    examples = contrastive_examples()
    gradients = private_retriever.unit_gradients(retriever, optimizer_of(retriever), examples, retriever.config)
    for example in examples:
        alone = backward_alone(retriever, contrastive_by_hand(retriever, example, 20.0))
        np.testing.assert_allclose(of_one(gradients, example), alone, rtol=1e-3, atol=1e-5)


def test_a_questions_gradient_is_that_of_its_own_backward_pass_lsr(load_retriever):
    retriever = load_retriever(loss="lsr", lsr={"tau_r": 0.05, "tau_lm": 0.1})
    _random_b(retriever)
    examples = scored_examples()
    gradients = private_retriever.unit_gradients(retriever, optimizer_of(retriever), examples, retriever.config)
    for example in examples:
        alone = backward_alone(retriever, lsr_by_hand(retriever, example, 0.05, 0.1))
        np.testing.assert_allclose(of_one(gradients, example), alone, rtol=1e-3, atol=1e-5)


def test_norms_are_those_that_opacus_finds_in_one_pass_over_all(load_generator):
    generator = load_generator()
    examples = [replace(example, answer=example.answer[:3]) for example in generator_examples(generator)]
    gradients = private_generator.unit_gradients(generator, optimizer_of(generator), GeneratorConfig())
    with gradients.ready():
        ours = gradient_norms(gradients.of_examples(examples))
    longest = max(example.length for example in examples)
    rows = [[*e.prompt, *e.answer] + [generator.pad_id] * (longest - e.length) for e in examples]
    with computing_as_stock(generator.model):
        wrapped = GradSampleModule(generator.model, strict=False).train()
        logits = wrapped(input_ids=torch.tensor(rows)).logits
        losses = [
            functional.cross_entropy(logits[i, len(e.prompt) - 1 : e.length - 1], torch.tensor(e.answer))
            for i, e in enumerate(examples)
        ]
        torch.stack(losses).mean().backward()
        squares = sum(
            parameter.grad_sample.flatten(1).square().sum(dim=1) for parameter in generator.parameters().values()
        )
        wrapped.to_standard_module().eval()
    np.testing.assert_allclose(ours, squares.sqrt().numpy(), rtol=1e-4)


def test_a_subjects_gradient_is_the_mean_of_its_questions_and_is_clipped_as_a_whole(load_retriever):
    retriever = load_retriever(loss="lsr", lsr={"tau_r": 0.05})
    _random_b(retriever)
    examples = scored_examples()
    gradients = private_retriever.unit_gradients(retriever, optimizer_of(retriever), examples, retriever.config)
    alone = [of_one(gradients, example) for example in examples]
    with gradients.ready():
        whole, clipped = gradients.clipped_sum([examples], 1e9), gradients.clipped_sum([examples], 0.01)
    np.testing.assert_allclose(flat(whole), np.mean(alone, axis=0), atol=1e-6)
    assert 0.00999 < np.linalg.norm(flat(clipped)) <= 0.01


def test_clipping_scales_down_never_up_and_never_tells_of_what_is_not_finite():
    def clipped(*units: tuple[float, ...], norm: float) -> list[float]:
        rows = torch.tensor(units)
        return flat(sum_clipped([rows[:, :2], rows[:, 2:]], norm)).tolist()

    assert clipped((3.0, 0.0, 4.0), norm=1.0) == pytest.approx([0.6, 0.0, 0.8], rel=1e-5)
    assert np.linalg.norm(clipped((3.0, 0.0, 4.0), norm=1.0)) <= 1.0
    assert clipped((3.0, 0.0, 4.0), norm=10.0) == [3.0, 0.0, 4.0]
    assert clipped((math.nan, 1.0, 2.0), (math.inf, 1.0, 2.0), (0.0, 0.0, 0.0), norm=1.0) == [0.0, 0.0, 0.0]
    assert clipped((1.0, math.nan, 2.0), (3.0, 0.0, 4.0), norm=10.0) == [3.0, 0.0, 4.0]


class _Line(torch.nn.Module):
    """Two weights, whose gradient of `loss_of` is the example itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))


def steps_of_line(
    units: list[list[Any]], steps: NoisedSteps, threads: int = 1
) -> tuple[MasterOptimizer, list[np.ndarray]]:
    """Train two weights; return the optimizer and the gradients that it was given."""
    line, given = _Line(), []
    settings = OptimizerSection(schedule="constant", warmup=0.0, clip_norm=1e9)
    optimizer = MasterOptimizer({"weight": line.weight}, settings)
    step = optimizer.step

    def watched(done: float) -> float:
        given.append(optimizer.masters[0].grad.numpy().copy())
        return step(done)

    optimizer.step = watched  # type: ignore[method-assign]
    gradients = UnitGradients(
        optimizer, lambda examples: (line.weight * torch.tensor(examples)).sum(), None, lambda example: 1, 2
    )
    with thread_pool(threads) as run:
        train_with_noise(gradients, units, steps, run, threads, Progress(), None)
    return optimizer, given


@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_is_the_sum_of_the_clipped_divided_by_the_expected_number(threads):
    units = [[[3.0, 4.0]], [[0.3, 0.0]], [[0.0, -8.0], [0.0, -2.0]]]
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        _, given = steps_of_line(units, NoisedSteps(Event(0.0, 0.5, 1), 1.0, zeros), threads)
    finally:
        torch.set_num_threads(usual)
    np.testing.assert_allclose(given[0], np.array([0.6 + 0.3, 0.8 - 1.0]) / 1.5, atol=1e-5)


def test_one_question_more_moves_a_sum_by_no_more_than_the_clip_norm():
    units = [[[3.0, 4.0]], [[0.3, 0.0]], [[100.0, -8.0]]]
    sums = [2.0 * steps_of_line(some, NoisedSteps(Event(0.0, 1.0, 1), 0.5, zeros))[1][0] for some in (units[:2], units)]
    sums[1] *= 3 / 2
    assert np.linalg.norm(sums[1] - sums[0]) <= 0.5


def test_the_noise_of_a_step_has_its_deviation_and_an_empty_step_is_taken():
    steps = NoisedSteps(Event(3.0, 1e-9, 2_000), 0.5)
    _, given = steps_of_line([[[3.0, 4.0]]] * 10, steps)
    assert len(given) == 2_000
    assert np.std(np.stack(given) * 1e-9 * 10) == pytest.approx(1.5, rel=0.05)


def test_a_result_with_noise_tells_no_loss(load_generator, load_retriever):
    event = Event(1.0, 0.9, 2)
    generator, retriever = load_generator(), load_retriever(loss="lsr")
    results = [
        train_generator_privately(
            generator, [[e] for e in generator_examples(generator)], GeneratorConfig(), NoisedSteps(event, 0.1)
        ),
        train_retriever_privately(
            retriever, [[e] for e in scored_examples()], retriever.config, NoisedSteps(event, 0.1)
        ),
    ]
    for result in results:
        assert result.is_untold
        assert (result.steps, result.tokens) == (2, 0)
        assert any(tensor.any() for tensor in result.update.values())


def test_two_rounds_of_the_same_questions_differ(load_generator):
    updates = []
    for _ in range(2):
        generator = load_generator()
        units = [[e] for e in generator_examples(generator)]
        steps = NoisedSteps(Event(1.0, 1.0, 1), 0.1)
        updates.append(train_generator_privately(generator, units, GeneratorConfig(), steps).update)
    assert any((one[name] != other[name]).any() for one, other in pairwise(updates) for name in one)


def test_questions_with_the_same_passage_are_read_each_alone(load_generator):
    """The gradient of a question has the bits that it has where the others are not there."""
    generator = load_generator()
    gradients = private_generator.unit_gradients(generator, optimizer_of(generator), GeneratorConfig())
    example = generator_examples(generator)[0]
    before = of_one(gradients, example)
    for other in generator_examples(generator)[1:]:
        of_one(gradients, other)
    assert np.array_equal(of_one(gradients, example), before)


def _random_b(retriever: Any) -> None:
    """Let no gradient be zero by chance: B begins at zero."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in retriever.parameters().values():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
