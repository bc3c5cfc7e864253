"""The random models behave as their big relatives do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from fedrag.weights.store import find_model, hash_tensors
from fedrag.weights.tiny import TINY_MODELS, build_tiny_model

TEXTS = ["Phobos orbits Mars.", "naïve café\n\t 日本 🙂", "<b> 1 < 2 </b>"]


@pytest.mark.parametrize("name", TINY_MODELS)
def test_building_twice_gives_the_same_tensors(tiny_home: Path, tmp_path: Path, name: str):
    torch.manual_seed(1)
    build_tiny_model(name, tmp_path)
    assert hash_tensors(tmp_path) == find_model(name).tensors_sha256


@pytest.mark.parametrize("name", TINY_MODELS)
@pytest.mark.parametrize("text", TEXTS)
def test_any_text_survives_the_tokenizer_and_offsets_cover_it(tiny_home: Path, name: str, text: str):
    tokenizer = AutoTokenizer.from_pretrained(find_model(name).folder)
    encoding = tokenizer(text, return_offsets_mapping=True)
    assert tokenizer.decode(encoding.input_ids, skip_special_tokens=True) == text
    covered = {index for start, end in encoding.offset_mapping for index in range(start, end)}
    assert covered == set(range(len(text)))


def test_the_causal_model_chats_and_pads_with_its_end_token(tiny_home: Path):
    folder = find_model("fedrag/tiny-causal").folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"
    chat = [{"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_the_seq2seq_model_has_a_loss(tiny_home: Path):
    folder = find_model("fedrag/tiny-seq2seq").folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    batch = tokenizer("Where?", return_tensors="pt")
    loss = model(**batch, labels=tokenizer("Here", return_tensors="pt").input_ids).loss
    assert torch.isfinite(loss)
    assert tokenizer("Where?").input_ids[-1] == tokenizer.eos_token_id


def test_the_encoder_gives_unit_vectors_of_its_mean_token(tiny_home: Path):
    model = SentenceTransformer(str(find_model("fedrag/tiny-encoder").folder), device="cpu")
    assert model.max_seq_length == 64
    vectors = model.encode(TEXTS)
    assert vectors.shape == (3, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    tokens = model.encode(TEXTS[0], output_value="token_embeddings").cpu().numpy()
    mean = tokens.mean(axis=0)
    np.testing.assert_allclose(vectors[0], mean / np.linalg.norm(mean), atol=1e-5)
