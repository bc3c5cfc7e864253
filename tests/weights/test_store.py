"""What the store says about folders; the expected hashes are computed here by other means."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fedrag.errors import ModelError
from fedrag.weights.store import (
    count_parameters,
    fetched_models,
    find_model,
    hash_tensors,
    model_folder,
    verify_model,
)

A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.array([1.5, -2.0], dtype=np.float16)


def test_hash_is_that_of_names_types_shapes_and_bytes_in_order(tmp_path: Path):
    save_file({"b": B, "a": A}, tmp_path / "model.safetensors")
    expected = hashlib.sha256(b".\0a\0F32\0(2, 3)\0" + A.tobytes() + b".\0b\0F16\0(2,)\0" + B.tobytes()).hexdigest()
    assert hash_tensors(tmp_path) == expected


def test_hash_does_not_depend_on_how_tensors_are_spread_over_files(tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    save_file({"a": A, "b": B}, one / "model.safetensors", metadata={"format": "pt"})
    save_file({"b": B}, two / "model-1.safetensors")
    save_file({"a": A}, two / "model-2.safetensors")
    assert hash_tensors(one) == hash_tensors(two)
    assert count_parameters(one) == 8


@pytest.mark.parametrize("changed", [A + 1e-6, A.reshape(3, 2), A.astype(np.float64)])
def test_hash_changes_with_a_value_a_shape_or_a_type(tmp_path: Path, changed: np.ndarray):
    save_file({"a": A}, tmp_path / "model.safetensors")
    before = hash_tensors(tmp_path)
    save_file({"a": changed}, tmp_path / "model.safetensors")
    assert hash_tensors(tmp_path) != before


def test_an_empty_tensor_can_be_hashed(tmp_path: Path):
    save_file({"a": np.zeros((0, 3), np.float32)}, tmp_path / "model.safetensors")
    assert len(hash_tensors(tmp_path)) == 64


def test_a_folder_without_safetensors_is_an_error(tmp_path: Path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"holds no weights: expected at least one \*\.safetensors"):
        hash_tensors(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path: Path, keep: int):
    file = tmp_path / "model.safetensors"
    save_file({"a": A}, file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors: damaged or incomplete"):
        hash_tensors(tmp_path)


def test_fetched_models_are_found_by_name_and_kind(tiny_home: Path):
    kinds = {model.name: model.kind for model in fetched_models() if model.name.startswith("fedrag/")}
    assert kinds == {
        "fedrag/tiny-causal": "causal",
        "fedrag/tiny-encoder": "encoder",
        "fedrag/tiny-seq2seq": "seq2seq",
    }
    assert find_model("fedrag/tiny-causal", "causal").folder == model_folder("fedrag/tiny-causal")


def test_a_model_that_was_not_fetched_is_an_error_with_the_command_and_the_nearest_name(tiny_home: Path):
    with pytest.raises(ModelError) as error:
        find_model("fedrag/tiny-casual")
    assert str(error.value) == (
        "fedrag/tiny-casual is not among the fetched models; run: fedrag models fetch fedrag/tiny-casual "
        "(nearest fetched: fedrag/tiny-causal)"
    )


def test_a_model_of_the_wrong_kind_is_an_error(tiny_home: Path):
    with pytest.raises(ModelError, match="tiny-encoder is of kind encoder, but a model of kind causal"):
        find_model("fedrag/tiny-encoder", "causal")


def test_an_empty_home_has_no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FEDRAG_HOME", str(tmp_path / "nothing-here"))
    assert fetched_models() == []


@pytest.mark.parametrize("name", ["", "../x", "a/b/c", "a b", "/abs", ".hidden", "a--b"])
def test_names_that_could_leave_the_store_are_refused(name: str):
    with pytest.raises(ModelError, match="is not a model name"):
        model_folder(name)


def test_a_changed_weight_is_found_and_the_message_says_what_to_do(own_tiny_causal: Path):
    file = own_tiny_causal / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][0] += 1.0
    save_file(tensors, file, metadata={"format": "pt"})
    model = find_model("fedrag/tiny-causal")
    with pytest.raises(ModelError) as error:
        verify_model(model)
    message = str(error.value)
    assert message.startswith("fedrag/tiny-causal is not the model that was fetched")
    assert model.tensors_sha256[:16] in message
    assert hash_tensors(own_tiny_causal)[:16] in message
    assert message.endswith("run: fedrag models fetch fedrag/tiny-causal --force")


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"name": "x"})])
def test_a_damaged_manifest_is_an_error_that_names_the_file(own_tiny_causal: Path, text: str):
    (own_tiny_causal / "manifest.json").write_text(text)
    with pytest.raises(ModelError, match=r"manifest\.json: not a readable manifest .* fetch fedrag/tiny-causal$"):
        fetched_models()
