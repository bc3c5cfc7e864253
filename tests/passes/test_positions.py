"""The head and the last feed-forward block compute what is asked about, to the same result."""

from __future__ import annotations

import torch

from fedrag.models.generator import Generator
from fedrag.passes.checkpointing import layers_checkpointed
from fedrag.passes.positions import asked_at
from fedrag.training.losses import answer_loss
from fedrag.types import Example

BATCH = [Example([5, 6, 7, 8, 9], [40, 41]), Example([5, 6, 3], [77, 78, 79])]


def gradients(generator: Generator) -> list[torch.Tensor]:
    loss = answer_loss(*generator.answer_logits(BATCH))
    return list(torch.autograd.grad(loss, list(generator.parameters().values())))


def adapted(generator: Generator, random_tensors) -> Generator:
    generator.set_adapter(random_tensors(generator.parameters(), seed=3))
    for parameter in generator.parameters().values():
        parameter.requires_grad_(True)
    return generator


def test_logits_and_gradients_are_those_of_all_positions(load_generator, random_tensors):
    generator = adapted(load_generator(), random_tensors)
    ids = torch.tensor([[5, 6, 7, 8, 9, 40], [5, 6, 3, 77, 78, 0]])
    everywhere = generator.model(input_ids=ids).logits
    expected = torch.cat([everywhere[0, 4:6], everywhere[1, 2:5]])
    logits, labels = generator.answer_logits(BATCH)
    torch.testing.assert_close(logits, expected)
    by_hand = torch.autograd.grad(answer_loss(expected, labels), list(generator.parameters().values()))
    for ours, theirs in zip(gradients(generator), by_hand, strict=True):
        torch.testing.assert_close(ours, theirs)


def rows_seen(generator: Generator, layer: int) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    block = generator.model.model.layers[layer].mlp.down_proj
    hook = block.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape[:2])))
    generator.answer_logits(BATCH)
    hook.remove()
    return shapes


def test_the_last_block_alone_reads_fewer_positions(load_generator):
    generator = load_generator()
    assert rows_seen(generator, 0) == [(1, 11)]
    assert rows_seen(generator, -1) == [(1, 5)]


def test_a_block_that_computes_again_in_the_backward_pass_reads_the_same(load_generator, random_tensors):
    generator = adapted(load_generator(), random_tensors)
    generator.model.train()
    plain = gradients(generator)
    with layers_checkpointed(generator.model):
        assert rows_seen(generator, -1) == [(1, 5)]
        again = gradients(generator)
    for ours, theirs in zip(again, plain, strict=True):
        assert torch.equal(ours, theirs)


def test_after_a_pass_all_positions_are_answered_again(load_generator):
    model = load_generator().model
    ids = torch.tensor([[5, 6, 7]])
    whole = model(input_ids=ids).logits
    with asked_at(torch.tensor([0]), torch.tensor([1]), (1, 3)):
        one = model(input_ids=ids).logits
    torch.testing.assert_close(one, whole[:, 1:2])
    assert torch.equal(model(input_ids=ids).logits, whole)
