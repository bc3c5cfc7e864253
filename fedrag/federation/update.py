"""Named tensors as one flat array and back, with a manifest that says where each tensor lies.

One array per component goes over the wire: many small ones cost a request each.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedrag.errors import MessageError
from fedrag.types import Array, Tensors


@dataclass(frozen=True)
class TensorSpec:
    """Where one tensor lies in the flat array."""

    name: str
    shape: tuple[int, ...]
    offset: int
    """Elements before its first one."""

    @property
    def size(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Manifest:
    """Names, shapes and offsets of a component's tensors, in the order of the flat array."""

    specs: tuple[TensorSpec, ...]

    @property
    def size(self) -> int:
        """Return the number of elements of the flat array."""
        return self.specs[-1].offset + self.specs[-1].size if self.specs else 0

    @cached_property
    def sha256(self) -> str:
        """Return the hash of names and shapes in order: equal where flat arrays fit each other."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Write names and shapes as canonical JSON; offsets follow from them.

        >>> manifest_of({"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float32)}).to_json()
        '[["a",[2,3]],["b",[4]]]'
        """
        return json.dumps([[spec.name, spec.shape] for spec in self.specs], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read what `to_json` wrote.

        Raises:
            MessageError: The text is not a list of different names with shapes.
        """
        try:
            entries = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise MessageError(f"a manifest is not valid JSON: {error}") from error
        if not isinstance(entries, list):
            raise MessageError(f"a manifest must be a list of [name, shape], not {type(entries).__name__}")
        named_shapes = [_named_shape(entry, place) for place, entry in enumerate(entries)]
        if len({name for name, _ in named_shapes}) < len(named_shapes):
            raise MessageError("a manifest names the same tensor twice")
        return _lay_out(named_shapes)


def _named_shape(entry: object, place: int) -> tuple[str, tuple[int, ...]]:
    """Check one entry of a manifest that came over the wire."""
    match entry:
        case [str(name), list(shape)] if all(type(length) is int and length >= 0 for length in shape):
            return name, tuple(shape)
    raise MessageError(f"entry {place} of a manifest must be [name, shape], not {str(entry)[:80]}")


def _lay_out(named_shapes: Iterable[tuple[str, tuple[int, ...]]]) -> Manifest:
    """Place tensors one after the other."""
    specs = []
    offset = 0
    for name, shape in named_shapes:
        specs.append(TensorSpec(name, shape, offset))
        offset += specs[-1].size
    return Manifest(tuple(specs))


def manifest_of(tensors: Tensors) -> Manifest:
    """Describe tensors in their own order."""
    return _lay_out((name, tensor.shape) for name, tensor in tensors.items())


def flatten(tensors: Tensors, manifest: Manifest) -> Array:
    """Copy tensors into one flat array, in the manifest's order.

    Returns:
        float32, contiguous, shape `(manifest.size,)`.

    Raises:
        MessageError: A tensor is missing, unexpected, or of another shape.
    """
    _check(tensors, {spec.name: spec.shape for spec in manifest.specs})
    flat = np.empty(manifest.size, dtype=np.float32)
    for spec in manifest.specs:
        flat[spec.offset : spec.offset + spec.size] = tensors[spec.name].reshape(-1)
    return flat


def unflatten(flat: Array, manifest: Manifest) -> Tensors:
    """Name the parts of a flat array; the tensors are views of it, not copies.

    Raises:
        MessageError: The array is not float32 of shape `(manifest.size,)`.
    """
    if flat.dtype != np.float32 or flat.shape != (manifest.size,):
        raise MessageError(
            f"an update is {flat.dtype} of shape {flat.shape}, expected float32 of shape ({manifest.size},)"
        )
    return {spec.name: flat[spec.offset : spec.offset + spec.size].reshape(spec.shape) for spec in manifest.specs}


def subtract(new: Tensors, received: Tensors) -> Tensors:
    """Return the difference that a site sends: what it has now minus what it received, in float32.

    Raises:
        MessageError: Names or shapes differ.
    """
    return {name: np.subtract(after, before) for name, after, before in _paired(new, received)}


def add(state: Tensors, difference: Tensors) -> Tensors:
    """Return the state moved by a difference, elementwise in float32, in the order of the state.

    Raises:
        MessageError: Names or shapes differ.
    """
    return {name: np.add(before, change) for name, change, before in _paired(difference, state)}


def norm(tensors: Tensors) -> float:
    """Return the L2 norm over all tensors together, accumulated in float64 in their order."""
    # einsum casts in small pieces (no float64 copy of an embedding matrix) and, unlike BLAS,
    # sums in the same order with any number of threads.
    flats = (tensor.reshape(-1) for tensor in tensors.values())
    return math.sqrt(sum(float(np.einsum("i,i->", flat, flat, dtype=np.float64)) for flat in flats))


def all_finite(flat: Array) -> bool:
    """Return whether no element is NaN or infinite."""
    return bool(np.isfinite(flat).all())


def _paired(tensors: Tensors, reference: Tensors) -> Iterator[tuple[str, Array, Array]]:
    """Pair tensors by name in the order of the reference; numpy would broadcast unequal shapes silently."""
    _check(tensors, {name: tensor.shape for name, tensor in reference.items()})
    return ((name, tensors[name], tensor) for name, tensor in reference.items())


def _check(tensors: Tensors, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise MessageError on the first tensor whose name or shape is not as expected."""
    for name, shape in shapes.items():
        if name not in tensors:
            raise MessageError(f"tensor {name!r} is missing from an update")
        if tensors[name].shape != shape:
            raise MessageError(f"tensor {name!r} has shape {tensors[name].shape}, expected {shape}")
    for name in tensors:
        if name not in shapes:
            raise MessageError(f"tensor {name!r} is not part of the component")
