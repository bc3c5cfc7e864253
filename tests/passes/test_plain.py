"""A padded pass with logits at the answer positions alone computes the same as one with all logits."""

from __future__ import annotations

import pytest
import torch

from fedrag.passes.plain import causal_logits, supports_logits_to_keep
from fedrag.training.losses import answer_loss
from fedrag.types import Example

BATCH = [Example([5, 6, 7, 8, 9], [40, 41]), Example([5, 6, 3], [77, 78, 79])]


def everywhere(generator) -> torch.Tensor:
    """Return the logits that predict the answers of BATCH, taken from those of all positions."""
    logits = generator.model(input_ids=torch.tensor([[5, 6, 7, 8, 9, 40], [5, 6, 3, 77, 78, 0]])).logits
    return torch.cat([logits[0, 4:6], logits[1, 2:5]])


def test_logits_and_gradients_are_those_of_all_positions(load_generator, random_tensors):
    generator = load_generator()
    generator.set_adapter(random_tensors(generator.parameters(), seed=3))
    parameters = list(generator.parameters().values())
    for parameter in parameters:
        parameter.requires_grad_(True)
    expected, found = everywhere(generator), causal_logits(generator.model, 0, BATCH)
    assert torch.equal(found, expected)
    labels = torch.tensor([40, 41, 77, 78, 79])
    by_hand, ours = (torch.autograd.grad(answer_loss(logits, labels), parameters) for logits in (expected, found))
    for one, other in zip(ours, by_hand, strict=True):
        torch.testing.assert_close(one, other)


def test_the_head_reads_the_answer_positions_alone(load_generator):
    generator = load_generator()
    rows: list[int] = []
    head = generator.model.get_output_embeddings()
    head.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].numel() // inputs[0].shape[-1]))
    causal_logits(generator.model, 0, BATCH)
    assert rows == [5]


def test_a_model_that_cannot_be_told_gives_the_same(load_generator, monkeypatch: pytest.MonkeyPatch):
    generator = load_generator()
    expected = causal_logits(generator.model, 0, BATCH)
    forward = generator.model.forward

    def older(input_ids=None, use_cache=None, cache=None, past_key_values=None):
        return forward(input_ids=input_ids, use_cache=use_cache)

    monkeypatch.setattr(generator.model, "forward", older)
    assert not supports_logits_to_keep(generator.model)
    assert torch.equal(causal_logits(generator.model, 0, BATCH), expected)
