"""What a site gone bad may send instead of its update, and what the server says of it.

The reasons hold for the tiny models and a site that told of four questions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, RecordDict

from fedrag.federation.codec import decode, encode
from fedrag.types import Component

CANARY = "canary-7f3a of patient Smith"

Change = Callable[[RecordDict], Any]
"""Changes the content of an honest reply to a round of training the generator."""


def with_values(component: Component, change: Callable[[Any], Any]) -> Change:
    """Change the numbers of one component's update."""

    def rewrite(content: RecordDict) -> None:
        raw = content["update"][component].numpy()
        flat = decode(raw, "float32", raw.size // 4)
        content["update"][component] = Array(encode(change(flat).astype(np.float32), "float32"))

    return rewrite


def put(flat: Any, value: float) -> Any:
    """Put a value among the numbers."""
    flat[7] = value
    return flat


def _with_count(count: float) -> Change:
    return lambda content: content["metrics"].update({"num-examples.generator": count})


def _set_manifest(content: RecordDict) -> None:
    content["manifests"]["generator"] = "0" * 64


def _add_component(content: RecordDict) -> None:
    content["update"]["adapter"] = content["update"]["generator"]


def _add_retriever(content: RecordDict) -> None:
    content["update"]["retriever"] = content["update"]["generator"]


def _in_two_dimensions(content: RecordDict) -> None:
    content["update"]["generator"] = Array(content["update"]["generator"].numpy()[None])


def _as_float32(content: RecordDict) -> None:
    content["update"]["generator"] = Array(content["update"]["generator"].numpy().view(np.float32))


def _garbage(content: RecordDict) -> None:
    array = content["update"]["generator"]
    content["update"]["generator"] = Array("uint8", (3,), "numpy.ndarray", b"no array " + CANARY.encode())
    assert array.data != content["update"]["generator"].data


def _no_update(content: RecordDict) -> None:
    content["update"].clear()
    content["manifests"].clear()


def _drop_metrics(content: RecordDict) -> None:
    del content["metrics"]


BAD_REPLIES: dict[str, tuple[Change, str]] = {
    "NaN": (with_values("generator", lambda flat: put(flat, np.nan)), "NaN or infinity"),
    "infinity": (with_values("generator", lambda flat: put(flat, -np.inf)), "NaN or infinity"),
    "too short": (with_values("generator", lambda flat: flat[:-1]), "expected 8704 bytes"),
    "too long": (with_values("generator", lambda flat: np.append(flat, 0)), "expected 8704 bytes"),
    "two dimensions": (_in_two_dimensions, "expected uint8 of shape (8704,)"),
    "other number format": (_as_float32, "is float32 of shape"),
    "unreadable array": (_garbage, "cannot be read"),
    "other tensors": (_set_manifest, "manifests differ"),
    "a huge norm": (with_values("generator", lambda flat: flat * 1e6), "above the limit of 1000"),
    "an unknown component": (_add_component, "a component that was not asked for"),
    "a component of another round": (_add_retriever, "a component that was not asked for"),
    "no update": (_no_update, "no update"),
    "no metrics": (_drop_metrics, "lacks a record"),
    "more examples than told": (_with_count(5), "it claims 5 generator examples, but told of 4"),
    "a billion examples": (_with_count(10**9), "it claims 1000000000 generator examples, but told of 4"),
    "no examples": (_with_count(0), "not a positive whole number"),
    "negative examples": (_with_count(-4), "not a positive whole number"),
    "fractional examples": (_with_count(3.5), "not a positive whole number"),
}
"""Each change, and the words that name it."""
