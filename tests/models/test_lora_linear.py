"""The adapted layer computes what PEFT's layer computes."""

from __future__ import annotations

import copy

import pytest
import torch
from peft.tuners.lora.layer import Linear
from torch import nn
from transformers.pytorch_utils import Conv1D

from fedrag.config.training_settings import LoraSection
from fedrag.models.adapters import add_lora, lora_parameters
from fedrag.models.lora_linear import LoraLinear


def adapted(layer: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(layer).to(dtype)
    add_lora(net, LoraSection(rank=2, alpha=6.0, targets=("0",)))
    with torch.no_grad():
        for parameter in lora_parameters(net).values():
            parameter.copy_(torch.randn(parameter.shape))
    return net


def as_peft(net: nn.Module) -> nn.Module:
    """The same network with PEFT's own forward pass."""
    plain = copy.deepcopy(net)
    plain[0].__class__ = Linear
    return plain


def inputs(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()


LAYERS = {
    "with a bias": lambda: nn.Linear(4, 7),
    "without": lambda: nn.Linear(4, 7, bias=False),
    "transposed": lambda: Conv1D(7, 4),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_and_gradients_are_those_of_peft(kind: str):
    net = adapted(LAYERS[kind]())
    plain = as_peft(net)
    assert type(net[0]) is LoraLinear
    x, y = inputs(), inputs()
    ours, theirs = net(x), plain(y)
    assert ours.shape == (3, 5, 7)
    torch.testing.assert_close(ours, theirs)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    expected = lora_parameters(plain)
    for name, parameter in lora_parameters(net).items():
        torch.testing.assert_close(parameter.grad, expected[name].grad)


def test_in_bfloat16_it_is_no_further_from_the_exact_result_than_peft():
    net = adapted(nn.Linear(4, 7), torch.bfloat16)
    exact = copy.deepcopy(net).double()
    x = inputs(torch.bfloat16)
    right = exact(x.double())
    error = (net(x).double() - right).abs().mean()
    assert 0 < error <= (as_peft(net)(x).double() - right).abs().mean()


def test_a_copy_computes_with_its_own_weights():
    net = adapted(nn.Linear(4, 7))
    other = copy.deepcopy(net)
    before = net(inputs())
    with torch.no_grad():
        for parameter in lora_parameters(other).values():
            parameter.zero_()
    assert torch.equal(net(inputs()), before)
    assert not torch.equal(other(inputs()), before)


def test_an_adapter_in_another_number_format_is_left_to_peft():
    net = adapted(nn.Linear(4, 7), torch.float32)
    net[0].base_layer.to(torch.bfloat16)
    x = inputs(torch.bfloat16)
    torch.testing.assert_close(net(x), as_peft(net)(x))
