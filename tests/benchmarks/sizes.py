"""Random weights of the shapes that users train: Qwen2.5-0.5B, Llama-3.2-1B and Qwen2.5-7B.

Speed and memory do not hang on what the weights are, so no model need be fetched. The configurations are those that the
models' owners publish; tests/test_benchmark_sizes.py compares the numbers of weights with the published ones.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from fedrag.types import Example
from fedrag.weights.store import FetchedModel
from fedrag.weights.tiny import build_tiny_model

WEIGHT_STD = 0.02
RESERVED = 3  # ids of the tokenizer's special tokens
INSTRUCTION, PASSAGE, QUESTION, ANSWER = 40, 120, 20, 12


def _qwen_half_billion() -> PreTrainedConfig:
    return Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4_864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=True,
    )


def _llama_one_billion() -> PreTrainedConfig:
    return LlamaConfig(
        vocab_size=128_256,
        hidden_size=2_048,
        intermediate_size=8_192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        max_position_embeddings=131_072,
        rms_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8_192,
        },
        tie_word_embeddings=True,
    )


def _qwen_seven_billion() -> PreTrainedConfig:
    return Qwen2Config(
        vocab_size=152_064,
        hidden_size=3_584,
        intermediate_size=18_944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        max_position_embeddings=32_768,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=False,
    )


SIZES: dict[str, Callable[[], PreTrainedConfig]] = {
    "Qwen2.5-0.5B": _qwen_half_billion,
    "Llama-3.2-1B": _llama_one_billion,
    "Qwen2.5-7B": _qwen_seven_billion,
}


def empty_model(size: str) -> PreTrainedModel:
    """Return a model on the meta device: its layers without weights."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(SIZES[size]())
    return model


def written(size: str, root: Path) -> FetchedModel:
    """Return where a size's model lies."""
    return FetchedModel(size, "causal", root / size, "random", "none", "", "")


def write_random_model(size: str, root: Path, device: str) -> None:
    """Write random weights in bfloat16, as the owners publish theirs, and a small tokenizer beside them; once."""
    folder = written(size, root).folder
    if folder.exists():
        return
    partial = folder.with_name(f"{size}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    build_tiny_model("fedrag/tiny-causal", partial)
    tokenizer = AutoTokenizer.from_pretrained(partial)
    config = SIZES[size]()
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    torch.manual_seed(0)
    model = empty_model(size).to(torch.bfloat16).to_empty(device=device)
    model.config = config
    model.tie_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=WEIGHT_STD)
            else:
                parameter.fill_(1.0)
    (partial / "model.safetensors").unlink()
    model.save_pretrained(partial, max_shard_size="4GB")
    partial.rename(folder)


def random_examples(size: str, count: int, passages: int) -> list[Example]:
    """Return texts of random tokens: an instruction that all share, passages, a question and an answer of their own.

    No two texts have a passage in common, so little of what fedrag reads once is there to be gained.
    """
    chance = random.Random(0)
    vocabulary = SIZES[size]().vocab_size

    def draw(tokens: int) -> list[int]:
        return [chance.randrange(RESERVED, vocabulary) for _ in range(tokens)]

    instruction = draw(INSTRUCTION)
    ends = tuple(INSTRUCTION + PASSAGE * number for number in range(1, passages + 1))
    return [Example(instruction + draw(PASSAGE * passages + QUESTION), draw(ANSWER), ends) for _ in range(count)]
