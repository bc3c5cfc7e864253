import hashlib
import json

import numpy as np
import pytest

from fedrag.errors import MessageError
from fedrag.federation.update import (
    Manifest,
    TensorSpec,
    add,
    all_finite,
    flatten,
    manifest_of,
    norm,
    subtract,
    unflatten,
)


@pytest.fixture
def tensors():
    return {
        "b": np.array([[1, 2, 3], [4, 5, 6]], np.float32),
        "a": np.array([7], np.float32),
        "scalar": np.array(8, np.float32),
        "empty": np.zeros((0, 2), np.float32),
    }


def test_manifest_keeps_the_order_of_the_tensors_and_counts_elements(tensors):
    manifest = manifest_of(tensors)
    assert manifest.specs == (
        TensorSpec("b", (2, 3), 0),
        TensorSpec("a", (1,), 6),
        TensorSpec("scalar", (), 7),
        TensorSpec("empty", (0, 2), 8),
    )
    assert manifest.size == 8
    assert Manifest(()).size == 0


def test_flat_array_holds_the_tensors_in_the_order_of_the_manifest(tensors):
    manifest = manifest_of(tensors)
    shuffled = dict(sorted(tensors.items()))
    flat = flatten(shuffled, manifest)
    assert flat.dtype == np.float32
    assert flat.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_unflatten_gives_named_views_of_the_flat_array(tensors):
    manifest = manifest_of(tensors)
    flat = flatten(tensors, manifest)
    views = unflatten(flat, manifest)
    assert list(views) == list(tensors)
    for name, tensor in tensors.items():
        assert np.array_equal(views[name], tensor)
        assert views[name].shape == tensor.shape
    flat[3] = 40
    assert views["b"][1, 0] == 40


def test_flatten_takes_tensors_that_are_not_contiguous():
    transposed = np.arange(6, dtype=np.float32).reshape(2, 3).T
    tensors = {"t": transposed}
    assert flatten(tensors, manifest_of(tensors)).tolist() == [0, 3, 1, 4, 2, 5]


def test_flatten_does_not_share_memory_with_the_tensors(tensors):
    flat = flatten(tensors, manifest_of(tensors))
    flat[:] = 0
    assert tensors["a"][0] == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("a"), "tensor 'a' is missing"),
        (lambda tensors: tensors.update(c=np.zeros(1, np.float32)), "tensor 'c' is not part"),
        (
            lambda tensors: tensors.update(b=np.zeros((3, 2), np.float32)),
            r"tensor 'b' has shape \(3, 2\), expected \(2, 3\)",
        ),
    ],
)
def test_flatten_names_the_tensor_that_does_not_fit(tensors, change, message):
    manifest = manifest_of(tensors)
    change(tensors)
    with pytest.raises(MessageError, match=message):
        flatten(tensors, manifest)


@pytest.mark.parametrize("flat", [np.zeros(7, np.float32), np.zeros(8), np.zeros((2, 4), np.float32)])
def test_unflatten_refuses_an_array_of_another_size_or_type(tensors, flat):
    with pytest.raises(MessageError, match=r"expected float32 of shape \(8,\)"):
        unflatten(flat, manifest_of(tensors))


def test_manifest_survives_json_and_its_hash_is_that_of_the_text(tensors):
    manifest = manifest_of(tensors)
    text = manifest.to_json()
    assert json.loads(text) == [["b", [2, 3]], ["a", [1]], ["scalar", []], ["empty", [0, 2]]]
    assert Manifest.from_json(text) == manifest
    assert manifest.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_hash_differs_where_name_shape_or_order_differ():
    def hash_of(**shapes):
        return manifest_of({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}).sha256

    hashes = {
        hash_of(a=(2, 3), b=1),
        hash_of(a=(3, 2), b=1),
        hash_of(b=1, a=(2, 3)),
        hash_of(a=(2, 3), c=1),
    }
    assert len(hashes) == 4
    assert hash_of(a=(2, 3), b=1) in hashes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        "[" * 100_000,
        '["a"]',
        '[["a"]]',
        '[["a", 2]]',
        "[[2, [2]]]",
        '[["a", [-1]]]',
        '[["a", [1.5]]]',
        '[["a", [true]]]',
        '[["a", [1]], ["a", [1]]]',
        '[["a", [1], 0]]',
    ],
)
def test_malformed_manifest_is_refused(text):
    with pytest.raises(MessageError, match="manifest"):
        Manifest.from_json(text)


def test_subtract_and_add_work_elementwise_in_float32():
    received = {"a": np.array([1.0, 16_777_216.0], np.float32), "b": np.array([0.5], np.float32)}
    new = {"b": np.array([0.25], np.float32), "a": np.array([1.5, 16_777_218.0], np.float32)}
    difference = subtract(new, received)
    assert list(difference) == ["a", "b"]
    assert difference["a"].tolist() == [0.5, 2.0]
    assert difference["b"].tolist() == [-0.25]
    assert add(received, difference)["a"].tolist() == [1.5, 16_777_218.0]
    assert all(tensor.dtype == np.float32 for tensor in add(received, difference).values())
    # 2**24 + 1 does not exist in float32
    assert add({"a": np.float32([2**24])}, {"a": np.float32([1])})["a"].tolist() == [2**24]


@pytest.mark.parametrize("operation", [subtract, add])
def test_shapes_that_numpy_would_broadcast_are_refused(operation):
    with pytest.raises(MessageError, match="tensor 'a' has shape"):
        operation({"a": np.zeros((2, 3), np.float32)}, {"a": np.zeros((1, 3), np.float32)})


def test_norm_runs_over_all_tensors_and_accumulates_in_float64():
    assert norm({"a": np.array([[3.0]], np.float32), "b": np.array([4.0, 12.0], np.float32)}) == 13.0
    assert norm({}) == 0.0
    # In float32 the square overflows, and small terms are lost beside a large one.
    assert norm({"a": np.array([1e30], np.float32)}) == float(np.float32(1e30))
    many = np.full(2**20, 2.0**-13, np.float32)
    assert norm({"a": np.array([2.0**10], np.float32), "b": many}) == (2.0**20 + 2.0**-6) ** 0.5


def test_norm_of_a_tensor_that_is_not_finite_is_not_finite():
    assert np.isnan(norm({"a": np.array([1.0, np.nan], np.float32)}))
    assert np.isinf(norm({"a": np.array([1.0, -np.inf], np.float32)}))


@pytest.mark.parametrize(("value", "finite"), [(3e38, True), (np.nan, False), (np.inf, False), (-np.inf, False)])
def test_all_finite_finds_one_bad_element(value, finite):
    flat = np.zeros(1000, np.float32)
    flat[777] = value
    assert all_finite(flat) is finite
