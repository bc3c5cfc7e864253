"""Adapters: the layers that get one, their initial state, and a base that stays untouched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM

from fedrag.config.training_settings import LoraSection
from fedrag.errors import ModelError
from fedrag.models.adapters import (
    Targets,
    adapted_weights,
    adapter_disabled,
    add_lora,
    initial_lora,
    lora_parameters,
    remove_lora,
    save_adapter,
)


class Net(nn.Module):
    """Two layers, and a pooler that shares a layer's name."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dense = nn.Linear(4, 4)
        self.out = nn.Linear(4, 2)
        self.pooler = nn.ModuleDict({"dense": nn.Linear(2, 2)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.out(torch.tanh(self.dense(x)))
        return y


X = torch.arange(12.0).view(3, 4) / 10


def adapted(exclude: tuple[str, ...] = ()) -> Net:
    net = Net()
    add_lora(net, LoraSection(rank=2, alpha=6.0), exclude=exclude)
    with torch.no_grad():
        for i, parameter in enumerate(lora_parameters(net).values()):
            parameter.copy_(torch.sin(torch.arange(parameter.numel()) + i).view_as(parameter))
    return net


def test_an_excluded_part_has_no_adapter_although_its_layers_share_a_name():
    assert {name.rpartition(".lora_")[0] for name in lora_parameters(adapted(("pooler",)))} == {"dense", "out"}
    assert "pooler.dense.lora_A.weight" in lora_parameters(adapted())


def test_what_is_adapted_and_what_is_not_have_different_names():
    told = adapted_weights(adapted(("pooler",)))
    assert told.startswith("acts on dense, out; not on ")
    assert "pooler.dense" in told


def test_only_the_adapter_can_be_trained():
    net = adapted()
    trainable = {name.replace(".default", "") for name, p in net.named_parameters() if p.requires_grad}
    assert trainable == set(lora_parameters(net))


def test_disabled_it_is_the_base_exactly_and_enabled_it_is_not():
    net, base = adapted(), Net()
    with_adapter = net(X)
    with adapter_disabled(net):
        assert torch.equal(net(X), base(X))
    assert torch.equal(net(X), with_adapter)
    assert not torch.equal(net(X), base(X))


def test_disabling_may_be_nested():
    """The end of the inner block once switched the adapter on again for the rest of the outer one."""
    net, base = adapted(), Net()
    with adapter_disabled(net):
        with adapter_disabled(net):
            assert torch.equal(net(X), base(X))
        assert torch.equal(net(X), base(X))
    assert not torch.equal(net(X), base(X))


def test_it_is_enabled_again_after_an_error():
    net = adapted()
    with_adapter = net(X)
    with pytest.raises(RuntimeError, match="mid-way"), adapter_disabled(net):
        raise RuntimeError("mid-way")
    assert torch.equal(net(X), with_adapter)
    assert all(parameter.requires_grad for parameter in lora_parameters(net).values())


def test_it_can_be_merged_or_left_behind():
    net = adapted()
    with_adapter = net(X)
    remove_lora(net, merge=True)
    assert [type(module) for module in net.children()][:2] == [nn.Linear, nn.Linear]
    torch.testing.assert_close(net(X), with_adapter, atol=1e-5, rtol=0)
    other = adapted()
    remove_lora(other, merge=False)
    assert torch.equal(other(X), Net()(X))


def test_the_initial_state_depends_on_the_seed_alone_and_adds_nothing():
    shapes = {"x.lora_A.weight": (2, 100), "x.lora_B.weight": (50, 2)}
    first, again, other = initial_lora(shapes, 1), initial_lora(shapes, 1), initial_lora(shapes, 2)
    np.testing.assert_array_equal(first["x.lora_A.weight"], again["x.lora_A.weight"])
    assert (first["x.lora_A.weight"] != other["x.lora_A.weight"]).all()
    assert not first["x.lora_B.weight"].any()
    assert 0.09 < np.abs(first["x.lora_A.weight"]).max() <= 0.1
    assert first["x.lora_A.weight"].dtype == np.float32


def test_an_unknown_target_is_one_clear_sentence():
    with pytest.raises(
        ModelError, match=r'^lora.targets: "query" is not a linear layer of this model; it has dense, out$'
    ):
        add_lora(Net(), LoraSection(targets=("query",)))


@pytest.mark.parametrize("invocation", [None, (7, 8)])
def test_an_exported_adapter_says_from_which_tokens_on_it_acts(tmp_path: Path, invocation: tuple[int, ...] | None):
    tensors = {"dense.lora_A.weight": np.zeros((2, 4), np.float32), "dense.lora_B.weight": np.zeros((4, 2), np.float32)}
    save_adapter(tmp_path, tensors, LoraSection(rank=2), Targets(("dense",)), "base", "CAUSAL_LM", invocation)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config.get("alora_invocation_tokens") == (None if invocation is None else [7, 8])


def test_an_adapter_acts_on_the_experts_of_a_mixture():
    mixture = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=16,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            num_local_experts=4,
        )
    ).eval()
    ids = torch.arange(6)[None]
    untouched = mixture(input_ids=ids).logits
    targets = add_lora(mixture, LoraSection(rank=2, alpha=2.0))
    assert targets == Targets(("k_proj", "o_proj", "q_proj", "v_proj"), ("experts.down_proj", "experts.gate_up_proj"))
    experts = {name: p for name, p in lora_parameters(mixture).items() if ".experts." in name}
    assert len(experts) == 4
    assert {p.shape[0] for name, p in experts.items() if ".lora_A." in name} == {2 * 4}  # each expert has its own
    with torch.no_grad():
        for parameter in experts.values():
            parameter.fill_(0.5)
    assert (mixture(input_ids=ids).logits - untouched).abs().max() > 1e-3
    with adapter_disabled(mixture):
        torch.testing.assert_close(mixture(input_ids=ids).logits, untouched)


def test_a_layer_is_named_by_as_much_of_its_path_as_tells_it_apart():
    """PEFT would take "0" for every module whose path ends in it."""
    net = nn.Module()
    net.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.ReLU())])
    assert add_lora(net, LoraSection(rank=2)).modules == ("0.0",)
