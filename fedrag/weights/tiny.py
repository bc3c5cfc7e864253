"""Builds tiny random models: real architectures for tests and rehearsals, with useless answers.

Weights come from numpy's generator, not from torch's, so that they are the same on every machine.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from fedrag.weights.store import ModelKind

DIM = 32
LAYERS = 2
HEADS = 2
WEIGHT_STD = 0.1

_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tiny_model(name: str, folder: Path) -> None:
    """Build one of `TINY_MODELS` in a folder; its tensors are the same every time."""
    _, build = TINY_MODELS[name]
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stderr(io.StringIO()):  # hides progress bars
        build(folder)


def _build_causal(folder: Path) -> None:
    """Build a Llama with a chat template and, as in SmolLM2, a padding token that is also the end token."""
    tokenizer = _as_fast_tokenizer(
        _byte_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        model_max_length=2048,
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=DIM,
        intermediate_size=2 * DIM,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    _save(LlamaForCausalLM(config), tokenizer, folder)


def _build_seq2seq(folder: Path) -> None:
    """Build a T5; its decoder starts from the padding token, as in all T5 models."""
    tokenizer = _as_fast_tokenizer(
        _byte_tokenizer(["<pad>", "</s>"], template="$A </s>"),
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=2048,
    )
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=DIM,
        d_kv=DIM // HEADS,
        d_ff=2 * DIM,
        num_layers=LAYERS,
        num_heads=HEADS,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.decoder_start_token_id = tokenizer.pad_token_id
    _save(T5ForConditionalGeneration(config), tokenizer, folder)


def _build_encoder(folder: Path) -> None:
    """Build a BERT with mean pooling and normalised output, as a sentence-transformers folder."""
    tokenizer = _as_fast_tokenizer(
        _byte_tokenizer(["[PAD]", "[CLS]", "[SEP]"], template="[CLS] $A [SEP]"),
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        model_max_length=64,
    )
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=DIM,
        intermediate_size=2 * DIM,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
    )
    _save(BertModel(config), tokenizer, folder)
    transformer = Transformer(str(folder), max_seq_length=64)
    SentenceTransformer(modules=[transformer, Pooling(DIM), Normalize()], device="cpu").save(
        str(folder), create_model_card=False
    )


def _byte_tokenizer(special_tokens: list[str], template: str | None = None) -> Tokenizer:
    """Build a tokenizer with one token per byte: any text has an encoding, with offsets."""
    symbols = special_tokens + sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special_tokens)
    if template is not None:
        in_template = [(token, vocabulary[token]) for token in special_tokens if token in template]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=in_template)
    return tokenizer


def _as_fast_tokenizer(tokenizer: Tokenizer, **settings: str | int) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings)  # type: ignore[no-untyped-call]


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Fill a model's matrices from a fixed seed and save it; vectors keep their initial constants."""
    rng = np.random.default_rng(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            values = rng.standard_normal(tuple(parameter.shape), dtype=np.float32) * np.float32(WEIGHT_STD)
            parameter.data = torch.from_numpy(values)
    if model.can_generate():
        model.generation_config = GenerationConfig.from_model_config(model.config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


TINY_MODELS: dict[str, tuple[ModelKind, Callable[[Path], None]]] = {
    "fedrag/tiny-causal": ("causal", _build_causal),
    "fedrag/tiny-seq2seq": ("seq2seq", _build_seq2seq),
    "fedrag/tiny-encoder": ("encoder", _build_encoder),
}
