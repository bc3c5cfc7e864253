from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from fedrag.models.attention import LONGEST, NAME, cpu_attention, use_cpu_attention
from fedrag.weights.store import find_model


class Layer(torch.nn.Module):
    is_causal = True

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups


def attend(
    layer: Layer,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None = None,
) -> tuple[torch.Tensor, None]:
    """Attention without a model."""
    return cpu_attention(layer, query, key, value, mask, scaling=scaling)


def inputs(heads: int, key_heads: int, tokens: int, dtype: torch.dtype, width: int = 16) -> list[torch.Tensor]:
    """Return query, key and value; the values have a width of their own."""
    random = torch.Generator().manual_seed(0)
    shapes = [(2, heads, tokens, 16), (2, key_heads, tokens, 16), (2, key_heads, tokens, width)]
    return [torch.randn(shape, generator=random).to(dtype).requires_grad_() for shape in shapes]


def by_hand(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """Attention position by position in float64; (batch, tokens, heads, dim)."""
    group = query.shape[1] // key.shape[1]
    out = torch.zeros(*query.shape[:-1], value.shape[-1], dtype=torch.float64)
    for head in range(query.shape[1]):
        for t in range(query.shape[2]):
            scores = torch.einsum("bd,bkd->bk", query[:, head, t].double(), key[:, head // group, : t + 1].double())
            weights = (scores * scaling).softmax(-1)
            out[:, head, t] = torch.einsum("bk,bkd->bd", weights, value[:, head // group, : t + 1].double())
    return out.transpose(1, 2)


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (6, 2), (4, 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("width", [16, 8, 24])
def test_it_is_attention_by_hand(heads: int, key_heads: int, dtype: torch.dtype, tolerance: float, width: int):
    query, key, value = inputs(heads, key_heads, 23, dtype, width)
    out, _ = attend(Layer(heads // key_heads), query, key, value, None, scaling=0.3)
    assert out.shape == (2, 23, heads, width)
    torch.testing.assert_close(out.double(), by_hand(query, key, value, 0.3), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("width", [16, 8])  # DeepSeek's values are narrower than its keys
def test_gradients_are_those_of_the_fused_kernel(width: int):
    plain, fused = inputs(6, 2, 31, torch.float64, width), inputs(6, 2, 31, torch.float64, width)
    attend(Layer(3), *plain, None)[0].square().sum().backward()
    keys, values = (t.repeat_interleave(3, dim=1) for t in fused[1:])
    torch.nn.functional.scaled_dot_product_attention(fused[0], keys, values, is_causal=True).square().sum().backward()
    for ours, theirs in zip(plain, fused, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def padded(tokens: int, real: list[int]) -> torch.Tensor:
    """A mask (batch, 1, tokens, tokens) of texts that are padded on the right."""
    visible = torch.arange(tokens) < torch.tensor(real)[:, None]
    return visible[:, None, None, :].expand(-1, 1, tokens, -1)


@pytest.mark.parametrize("key_heads", [4, 2])
def test_padding_is_not_seen(key_heads: int):
    query, key, value = inputs(4, key_heads, 9, torch.float32)
    out, _ = attend(Layer(4 // key_heads), query, key, value, padded(9, [9, 5]))
    keys, values = (t.repeat_interleave(4 // key_heads, dim=1) for t in (key, value))
    fused = torch.nn.functional.scaled_dot_product_attention
    torch.testing.assert_close(out[:1].transpose(1, 2), fused(query[:1], keys[:1], values[:1]))
    short = [t[1:, :, :5] for t in (query, keys, values)]
    torch.testing.assert_close(out[1:, :5].transpose(1, 2), fused(*short))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_later_tokens_see_what_was_read_before(dtype: torch.dtype):
    query, key, value = inputs(6, 2, 11, dtype)
    all_at_once, _ = attend(Layer(3), query, key, value, None)
    mask = torch.ones(1, 1, 11, 11, dtype=torch.bool).tril()[:, :, 7:]
    later, _ = attend(Layer(3), query[:, :, 7:], key, value, mask)
    torch.testing.assert_close(later, all_at_once[:, 7:])


def test_gradients_of_later_tokens_are_those_of_the_fused_kernel():
    plain, fused = inputs(6, 2, 31, torch.float64), inputs(6, 2, 31, torch.float64)
    mask = torch.ones(2, 1, 31, 31, dtype=torch.bool).tril()[:, :, 20:]
    mask[1, :, :, :5] = False  # padding on the left
    attend(Layer(3), plain[0][:, :, 20:], *plain[1:], mask)[0].square().sum().backward()
    keys, values = (t.repeat_interleave(3, dim=1) for t in fused[1:])
    kernel = torch.nn.functional.scaled_dot_product_attention
    kernel(fused[0][:, :, 20:], keys, values, attn_mask=mask).square().sum().backward()
    for ours, theirs in zip(plain, fused, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_row_that_sees_nothing_stays_finite():
    query, key, value = inputs(4, 4, 6, torch.bfloat16)
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    mask[0, :, :, :3] = False  # padding on the left: the first three rows see nothing
    out, _ = attend(Layer(1), query, key, value, mask)
    assert torch.isfinite(out).all()


def test_an_encoder_sees_all():
    layer = Layer(1)
    layer.is_causal = False
    query, key, value = inputs(4, 4, 7, torch.float32)
    out, _ = attend(layer, query, key, value, None)
    torch.testing.assert_close(out.transpose(1, 2), torch.nn.functional.scaled_dot_product_attention(query, key, value))


def test_one_new_token_sees_all_that_came_before():
    query, key, value = inputs(4, 2, 8, torch.float32)
    all_at_once, _ = attend(Layer(2), query, key, value, None)
    last, _ = attend(Layer(2), query[:, :, -1:], key, value, None)
    torch.testing.assert_close(last, all_at_once[:, -1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [True, False])
def test_in_float32_the_fused_kernel_serves_other_masks(dtype: torch.dtype, causal: bool):
    layer = Layer(3)
    query, key, value = inputs(6, 2, 11, dtype)
    mask = torch.ones(2, 1, 11, 11, dtype=torch.bool).tril() if causal else padded(11, [11, 7])
    fused = sdpa_attention_forward(layer, query, key, value, mask)[0]
    ours = cpu_attention(layer, query, key, value, mask)[0]
    assert torch.equal(ours, fused) == (dtype == torch.float32 and not causal)
    torch.testing.assert_close(ours, fused, **({"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {}))


@pytest.mark.parametrize("causal", [True, False])
def test_a_call_overrules_what_the_layer_says_of_itself(causal: bool):
    layer, other = Layer(2), Layer(2)
    layer.is_causal, other.is_causal = not causal, causal
    parts = inputs(4, 2, 9, torch.bfloat16)
    overruled = cpu_attention(layer, *parts, None, is_causal=causal)[0]
    assert torch.equal(overruled, attend(other, *parts, None)[0])
    assert not torch.equal(overruled, attend(layer, *parts, None)[0])


def additive(mask: torch.Tensor) -> torch.Tensor:
    return torch.zeros(mask.shape, dtype=torch.bfloat16).masked_fill(~mask, -1e4)


@pytest.mark.parametrize(
    "mask",
    [additive(padded(11, [11, 7])), padded(11, [11, 7]).expand(2, 6, -1, -1).contiguous()],
    ids=["added to the scores", "of each head"],
)
def test_masks_of_another_form_go_to_the_fused_kernel(mask: torch.Tensor):
    layer, parts = Layer(3), inputs(6, 2, 11, torch.bfloat16)
    assert torch.equal(attend(layer, *parts, mask)[0], sdpa_attention_forward(layer, *parts, mask)[0])


@pytest.mark.parametrize("tokens", [1, 5])
def test_fewer_tokens_than_keys_go_to_the_fused_kernel_where_no_mask_aligns_them(tokens: int):
    layer, (query, key, value) = Layer(3), inputs(6, 2, 11, torch.float32)
    fused = sdpa_attention_forward(layer, query[:, :, :tokens], key, value, None)[0]
    assert torch.equal(attend(layer, query[:, :, :tokens], key, value, None)[0], fused)


def test_dropout_is_left_to_the_fused_kernel():
    parts = inputs(4, 2, 9, torch.float32)
    assert not cpu_attention(Layer(2), *parts, None, dropout=1.0)[0].any()


@pytest.mark.parametrize("name", ["HuggingFaceTB/SmolLM2-135M-Instruct", "fedrag/tiny-causal"])
@pytest.mark.slow
@pytest.mark.usefixtures("real_models")
def test_a_model_says_the_same_with_either_attention(name: str):
    fetched = find_model(name)
    model = AutoModelForCausalLM.from_pretrained(fetched.folder, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(fetched.folder)
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.eos_token
    texts = tokenizer(["The capital of France is", "Paris"], return_tensors="pt", padding=True)
    with torch.inference_mode():
        fused = model(**texts).logits[:, -1].float().log_softmax(-1)
        use_cpu_attention(model)
        assert model.config._attn_implementation == NAME
        products = model(**texts).logits[:, -1].float().log_softmax(-1)
    assert not torch.equal(fused, products)
    likely = fused > fused.max(dim=-1, keepdim=True).values - 5.0
    assert (fused - products).abs()[likely].max() < 0.3


def numbers_kept_for_backward(tokens: int) -> int:
    sizes: list[int] = []
    query, key, value = inputs(2, 1, tokens, torch.bfloat16)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
        attend(Layer(2), query, key, value, None)
    return sum(sizes)


def test_scores_of_long_texts_are_not_kept():
    assert numbers_kept_for_backward(LONGEST) >= 2 * LONGEST**2
    assert numbers_kept_for_backward(LONGEST + 1) < LONGEST**2


def test_scores_of_what_no_position_of_a_block_sees_are_not_computed():
    tokens, heads = 512, 4  # two texts of two heads each
    others = 6 * 2 * tokens * 16  # queries, keys, values and what is copied of them, at most
    assert numbers_kept_for_backward(tokens) < 0.6 * heads * tokens**2 + others


@pytest.mark.parametrize("before", [0, 40])
@pytest.mark.parametrize("tokens", [64, 65, 200])
def test_blocks_of_positions_are_attention_by_the_fused_kernel(tokens: int, before: int):
    plain, fused = (inputs(6, 2, before + tokens, torch.float64) for _ in range(2))
    mask = torch.ones(before + tokens, before + tokens, dtype=torch.bool).tril()[before:]
    out, _ = attend(Layer(3), plain[0][:, :, before:], *plain[1:], mask.expand(2, 1, -1, -1), scaling=0.3)
    keys, values = (t.repeat_interleave(3, dim=1) for t in fused[1:])
    kernel = torch.nn.functional.scaled_dot_product_attention
    expected = kernel(fused[0][:, :, before:], keys, values, attn_mask=mask, scale=0.3).transpose(1, 2)
    torch.testing.assert_close(out, expected)
    out.sin().sum().backward()
    expected.sin().sum().backward()
    for ours, theirs in zip(plain, fused, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
