from __future__ import annotations

import pytest
import torch
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaConfig, LlamaForCausalLM, LlamaRMSNorm

from fedrag.passes.rms_norm import rms_norm, use_cpu_rms_norm

DIM, EPSILON = 48, 1e-5


def norm(dtype: torch.dtype) -> LlamaRMSNorm:
    module = LlamaRMSNorm(DIM, EPSILON).to(dtype).requires_grad_(False)
    module.weight.copy_(torch.rand(DIM, generator=torch.Generator().manual_seed(1)) + 0.5)
    return module


def drawn(dtype: torch.dtype, seed: int) -> torch.Tensor:
    return (3 * torch.randn(2, 17, DIM, generator=torch.Generator().manual_seed(seed))).to(dtype)


def gradient_by_hand(hidden: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Row by row in float64, by the Jacobian of y_i = w_i x_i s with s = (mean x^2 + epsilon)^(-1/2)."""
    rows = []
    for x, g in zip(hidden.double().view(-1, DIM), gradient.double().view(-1, DIM), strict=True):
        scale = ((x * x).mean() + EPSILON) ** -0.5
        jacobian = weight.double()[:, None] * (torch.eye(DIM) * scale - torch.outer(x, x) * scale**3 / DIM)
        rows.append(g @ jacobian)
    return torch.stack(rows).view(hidden.shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_it_is_the_module_to_the_bit_and_backward_the_formula(dtype):
    module, hidden, gradient = norm(dtype), drawn(dtype, 2).requires_grad_(), drawn(dtype, 3)
    out = rms_norm(hidden, module.weight, EPSILON)
    theirs = module(hidden)
    assert torch.equal(out, theirs)
    [found] = torch.autograd.grad(out, hidden, gradient)
    [by_autograd] = torch.autograd.grad(theirs, hidden, gradient)
    expected = gradient_by_hand(hidden.detach(), module.weight, gradient)
    assert found.dtype == dtype
    assert (found - expected).norm() < 1.1 * (by_autograd - expected).norm() + 1e-6 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_computes_the_same(dtype):
    settings = {"hidden_size": DIM, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, **settings)).to(dtype)
    model.requires_grad_(False)
    ids = torch.arange(20)[None]
    learned = model.model.layers[0].mlp.up_proj.weight.requires_grad_()

    def loss_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        loss = model(input_ids=ids, labels=ids).loss
        return loss.detach(), torch.autograd.grad(loss, learned)[0]

    plain = loss_and_gradient()
    use_cpu_rms_norm(model)
    assert sum("forward" in vars(module) for module in model.modules()) == 5
    light = loss_and_gradient()
    assert torch.equal(light[0], plain[0])
    assert plain[1].norm() > 0
    assert (light[1] - plain[1]).norm() < (1e-5 if dtype == torch.float32 else 0.02) * plain[1].norm()


@pytest.mark.parametrize(
    "other",
    [Gemma2RMSNorm(DIM).requires_grad_(False), LlamaRMSNorm(DIM), torch.nn.LayerNorm(DIM).requires_grad_(False)],
    ids=["Gemma2", "trained", "LayerNorm"],
)
def test_what_computes_otherwise_or_is_trained_keeps_its_own(other):
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=8, hidden_size=DIM, intermediate_size=8, num_hidden_layers=1, num_attention_heads=4)
    )
    model.model.norm = other
    use_cpu_rms_norm(model)
    assert "forward" not in vars(other)


def test_a_norm_with_an_offset_is_seen_by_trial():
    class OffsetRMSNorm(LlamaRMSNorm):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return super().forward(hidden) + 1

    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=8, hidden_size=DIM, intermediate_size=8, num_hidden_layers=1, num_attention_heads=4)
    ).requires_grad_(False)
    model.model.norm = OffsetRMSNorm(DIM, EPSILON).requires_grad_(False)
    use_cpu_rms_norm(model)
    assert "forward" not in vars(model.model.norm)
    assert "forward" in vars(model.model.layers[0].input_layernorm)
