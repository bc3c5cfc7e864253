"""Passes that are padded to a few shapes, as CUDA graphs need, compute what plain passes compute."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fedrag.models.generator import Generator
from fedrag.passes.cuda_graph import GraphCapture, is_launch_bound
from fedrag.passes.cuda_graph_training import CapturedPasses
from fedrag.passes.reading import answer_logits, reader_of
from fedrag.training.losses import answer_loss
from fedrag.types import Example

BATCHES = [
    [Example([5, 6, 7, 8, 9], [40, 41]), Example([5, 6, 3], [77, 78, 79])],
    [Example([9, 8, 7], [50]), Example([4, 4, 4, 4], [60, 61]), Example([3], [7, 8, 9, 10])],
    [Example(list(range(3, 80)), [40, 41])],
]


def adapted(generator: Generator, random_tensors) -> Generator:
    generator.set_adapter(random_tensors(generator.parameters(), seed=3))
    for parameter in generator.parameters().values():
        parameter.requires_grad_(True)
    return generator


def plain(generator: Generator, batch: list[Example]) -> tuple[float, list[torch.Tensor]]:
    loss = answer_loss(*answer_logits(generator, batch)) / 5
    return loss.item(), [g.cpu() for g in torch.autograd.grad(loss, list(generator.parameters().values()))]


def made_by(passes: CapturedPasses, batch: list[Example]) -> tuple[float, list[torch.Tensor]]:
    loss, gradients = passes.forward_backward(batch, answer_loss, 5)
    assert all(gradient is not None for gradient in gradients)
    return loss.item(), [gradient.cpu().clone() for gradient in gradients if gradient is not None]


def assert_same(ours, theirs, **tolerance) -> None:
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    for one, other in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("batch", BATCHES)
def test_padding_to_a_shape_changes_neither_loss_nor_gradients(load_generator, random_tensors, batch):
    generator = adapted(load_generator(), random_tensors)
    passes = CapturedPasses(generator.model, 0, GraphCapture(generator.model.device))
    assert_same(made_by(passes, batch), plain(generator, batch), rtol=1e-4, atol=1e-6)


def test_a_shape_that_comes_again_has_the_numbers_of_the_new_batch(load_generator, random_tensors):
    generator = adapted(load_generator(), random_tensors)
    passes = CapturedPasses(generator.model, 0, GraphCapture(generator.model.device))
    for batch in (BATCHES[0], [Example([9, 8], [50, 51, 52]), Example([4], [60, 61])], BATCHES[0]):
        assert_same(made_by(passes, batch), plain(generator, batch), rtol=1e-4, atol=1e-6)


def test_on_a_cpu_nothing_is_captured(load_generator):
    generator = load_generator()
    assert reader_of(generator).paths.training.name == "tree"
    assert GraphCapture(generator.model.device).capture(lambda: 1) is None


def test_a_model_is_small_up_to_a_sixteenth_of_the_memory(monkeypatch):
    for memory, small in ((16_000, True), (15_999, False)):
        found = SimpleNamespace(total_memory=memory)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, found=found: found)
        assert is_launch_bound(1000.0, torch.device("cuda")) == small
