"""Builds the models of the zoo: random weights that are large enough for a wrong reading to show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from architectures import POSITIONS, SMALL, Architecture, Encoder
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from tiny_federation import SHIPPED
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

VOCABULARY = 400
MOST_WEIGHTS = 400_000
_SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
_ENCODERS_SPECIAL = {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
_CHAT_TEMPLATE = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def build_generator(name: str, model: Architecture, folder: Path, kind: str = "causal") -> Path:
    """Build a language model in a folder, and return the folder."""
    tokenizer = _tokenizer(model, template="$A </s>" if kind == "seq2seq" else None)
    if model.chat:
        tokenizer.chat_template = _CHAT_TEMPLATE
    classes = {"causal": AutoModelForCausalLM, "seq2seq": AutoModelForSeq2SeqLM}
    _save(classes[kind].from_config(_config(name, model, tokenizer)), folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_encoder(name: str, model: Encoder, folder: Path) -> Path:
    """Build a sentence-transformers model in a folder, and return the folder."""
    tokenizer = _tokenizer(model, template="<s> $A </s>", **_ENCODERS_SPECIAL)
    _save(AutoModel.from_config(_config(name, model, tokenizer)), folder / "base")
    tokenizer.save_pretrained(folder / "base")
    modules: list[Any] = [Transformer(str(folder / "base"))]
    modules.append(Pooling(modules[0].get_embedding_dimension(), pooling_mode=model.pooling))
    if model.dense:
        modules.append(Dense(modules[0].get_embedding_dimension(), model.dense))
    if model.normalize:
        modules.append(Normalize())
    encoder = SentenceTransformer(modules=modules, similarity_fn_name=model.similarity, device="cpu")
    encoder.save(str(folder / "whole"), create_model_card=False)
    return folder / "whole"


def _config(name: str, model: Architecture, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    """Return a configuration in which every size that it knows is small."""
    name = model.model_type or name
    standard = AutoConfig.for_model(name)
    computed = {key for key, value in vars(type(standard)).items() if isinstance(value, property)}
    known = {*vars(standard), *standard.attribute_map} - computed
    settings = {key: value for key, value in SMALL.items() if key in known} | model.settings
    tokens = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if standard.is_encoder_decoder:
        tokens["decoder_start_token_id"] = tokenizer.pad_token_id
    return AutoConfig.for_model(name, **settings, **tokens, vocab_size=len(tokenizer))


def _save(model: PreTrainedModel, folder: Path) -> None:
    """Give a model random weights, and save it."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(0.15 * noise if weight.ndim > 1 else weight + 0.1 * noise)
    assert sum(weight.numel() for weight in model.parameters()) < MOST_WEIGHTS
    model.save_pretrained(folder)


def _tokenizer(model: Architecture, template: str | None, **special: str) -> PreTrainedTokenizerFast:
    trained = Tokenizer.from_str(_trained(model.tokenizer))
    if template is not None:
        ends = [(token, trained.token_to_id(token)) for token in ("<s>", "</s>") if token in template.split()]
        trained.post_processor = processors.TemplateProcessing(single=template, special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=trained, model_max_length=POSITIONS - 4, **_SPECIAL, **special)


@cache
def _trained(kind: str) -> str:
    """Train a tokenizer on the texts that ship, and return it as JSON."""
    special = [*_SPECIAL.values(), *set(_ENCODERS_SPECIAL.values()) - set(_SPECIAL.values())]
    common = {"vocab_size": VOCABULARY, "special_tokens": special, "show_progress": False}
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **common)
    elif kind == "pieces":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token="<unk>", **common)
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(**common)
    tokenizer.train_from_iterator(_texts(), trainer)
    return tokenizer.to_str()


def _texts() -> Iterator[str]:
    """Yield the shipped passages and questions, and every printable letter of ASCII."""
    yield " ".join(map(chr, range(33, 127)))
    for file in sorted(SHIPPED.rglob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield f"{row.get('text', '')} {row.get('question', '')}"
