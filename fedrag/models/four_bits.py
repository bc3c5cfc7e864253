"""A frozen base with linear layers in 4 bits (NF4; QLoRA, Dettmers et al. 2023, arXiv:2305.14314).

Each block of 64 weights is stored as 4-bit codes and a scale, the scales in 8 bits. A layer unpacks its weights in each
pass and computes in the number format of the rest. The output head, the embeddings and the norms are not packed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fedrag.errors import ModelError
from fedrag.models.adapters import lora_parameters

BLOCK = 64  # weights that share a scale
WEIGHT_BYTES = 1 / 2 + 1 / BLOCK + 4 / (256 * BLOCK)  # a code; a scale of 8 bits a block; a float32 for 256 scales


def require_bitsandbytes() -> None:
    """Refuse 4 bits if the library that packs them is missing.

    Raises:
        ModelError: It is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "models.generator_dtype = \"nf4\" needs the library bitsandbytes; run: pip install 'fedrag[4bit]'"
        )


def check_packable(model: PreTrainedModel) -> None:
    """Refuse a model that cannot be packed into 4 bits; its weights need not be loaded.

    Raises:
        ModelError: The library is not installed, or the rows of a layer are not whole blocks.
    """
    require_bitsandbytes()
    for layer in _packable(model):
        inputs = layer.in_features if isinstance(layer, nn.Linear) else layer.weight.shape[0]
        if inputs % BLOCK:  # on processors with AVX-512 the library unpacks such rows wrongly
            raise ModelError(
                f"a layer of {inputs} inputs cannot be packed into 4 bits, which takes a multiple of {BLOCK}; "
                'set models.generator_dtype = "auto"'
            )


def is_packed(model: PreTrainedModel) -> bool:
    """Return whether a model's weights are in 4 bits."""
    return bool(getattr(model, "is_loaded_in_4bit", False))


def count_packable(model: PreTrainedModel) -> int:
    """Return how many weights of a model 4 bits would hold; they need not be loaded."""
    return sum(layer.weight.numel() for layer in _packable(model))


def packing_options(dtype: torch.dtype, device: str) -> dict[str, Any]:
    """Return the arguments with which `from_pretrained` packs a model.

    Args:
        dtype: Number format in which it computes.
        device: Where it computes; a packed model is loaded there and stays there.
    """
    settings = BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # transformers gives it no types
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": settings, "device_map": {"": device}}


def settle_packed(model: PreTrainedModel) -> None:
    """Let a packed model with an adapter compute in one number format, in passes with and without gradient alike."""
    layer: Any  # the library's attributes are not typed
    for layer in model.modules():
        # On processors with bfloat16 instructions the first pass without gradient would repack the weights with coarser
        # scales, and passes with gradient would find none.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    for parameter in lora_parameters(model).values():  # older releases of PEFT make it float32
        parameter.data = parameter.data.to(model.dtype)


def _packable(model: PreTrainedModel) -> Iterator[nn.Linear | Conv1D]:
    """Yield the layers that the library packs: all linear ones but the output head."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers gives it no types
    kept = model._keep_in_fp32_modules or ()  # in T5, a layer that checks the number format of its weights
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Linear, Conv1D)) and layer is not head and name.rpartition(".")[2] not in kept:
            yield layer
