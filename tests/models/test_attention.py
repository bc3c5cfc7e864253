from __future__ import annotations

import pytest
import torch

from fedrag.models.attention import LONGEST, causal_attention


class Layer(torch.nn.Module):
    is_causal = True

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups


def inputs(heads: int, key_heads: int, tokens: int, dtype: torch.dtype) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = [(2, heads, tokens, 16), (2, key_heads, tokens, 16), (2, key_heads, tokens, 16)]
    return [torch.randn(shape, generator=random).to(dtype).requires_grad_() for shape in shapes]


def by_hand(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """Attention position by position in float64; (batch, tokens, heads, dim)."""
    group = query.shape[1] // key.shape[1]
    out = torch.zeros(query.shape, dtype=torch.float64)
    for head in range(query.shape[1]):
        for t in range(query.shape[2]):
            scores = torch.einsum("bd,bkd->bk", query[:, head, t].double(), key[:, head // group, : t + 1].double())
            weights = (scores * scaling).softmax(-1)
            out[:, head, t] = torch.einsum("bk,bkd->bd", weights, value[:, head // group, : t + 1].double())
    return out.transpose(1, 2)


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (6, 2), (4, 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_it_is_attention_by_hand(heads: int, key_heads: int, dtype: torch.dtype, tolerance: float):
    query, key, value = inputs(heads, key_heads, 23, dtype)
    out, _ = causal_attention(Layer(heads // key_heads), query, key, value, None, scaling=0.3)
    assert out.shape == (2, 23, heads, 16)
    torch.testing.assert_close(out.double(), by_hand(query, key, value, 0.3), atol=tolerance, rtol=tolerance)


def test_gradients_are_those_of_the_fused_kernel():
    plain, fused = inputs(6, 2, 31, torch.float64), inputs(6, 2, 31, torch.float64)
    causal_attention(Layer(3), *plain, None)[0].square().sum().backward()
    keys, values = (t.repeat_interleave(3, dim=1) for t in fused[1:])
    torch.nn.functional.scaled_dot_product_attention(fused[0], keys, values, is_causal=True).square().sum().backward()
    for ours, theirs in zip(plain, fused, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_what_is_not_plainly_causal_goes_to_the_fused_kernel():
    query, key, value = inputs(4, 2, 8, torch.float32)
    mask = torch.ones(2, 1, 8, 8, dtype=torch.bool)  # all positions see all
    out, _ = causal_attention(Layer(2), query, key, value, mask)
    keys, values = (t.repeat_interleave(2, dim=1) for t in (key, value))
    torch.testing.assert_close(
        out.transpose(1, 2), torch.nn.functional.scaled_dot_product_attention(query, keys, values)
    )


def test_one_new_token_sees_all_that_came_before():
    query, key, value = inputs(4, 2, 8, torch.float32)
    all_at_once, _ = causal_attention(Layer(2), query, key, value, None)
    last, _ = causal_attention(Layer(2), query[:, :, -1:], key, value, None)
    torch.testing.assert_close(last, all_at_once[:, -1:])


def largest_tensor_kept_for_backward(tokens: int) -> int:
    sizes: list[int] = []
    query, key, value = inputs(2, 1, tokens, torch.bfloat16)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
        causal_attention(Layer(2), query, key, value, None)
    return max(sizes)


def test_scores_of_long_texts_are_not_kept():
    assert largest_tensor_kept_for_backward(LONGEST) >= LONGEST**2
    assert largest_tensor_kept_for_backward(LONGEST + 1) < LONGEST**2
