"""Keeps the results of an audit's steps until it ends, so that one that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fedrag import __version__
from fedrag.errors import RunError
from fedrag.files import read_json, write_json
from fedrag.types import State

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KeptSteps:
    """Steps in a folder, a file each, which holds numbers alone.

    Attributes:
        folder: The folder; None: nothing is kept.
        key: What the results depend on; those of another key are computed anew.
    """

    folder: Path | None = None
    key: str = ""

    @classmethod
    def under(cls, folder: Path, state: State, *parts: object) -> KeptSteps:
        """Return steps that depend on this state, and on whatever else is named."""
        digest = hashlib.sha256(repr((__version__, parts)).encode())
        for component, tensors in state.items():
            for name, tensor in tensors.items():
                digest.update(f"{component} {name} {tensor.shape}".encode() + tensor.tobytes())
        return cls(folder, digest.hexdigest())

    def of(self, name: str, compute: Callable[[], T]) -> T:
        """Return the result of a step, computed here or before; it is what JSON can hold."""
        if self.folder is None:
            return compute()
        path = self.folder / f"{name}.json"
        kept = self._read(path)
        if kept.get("key") != self.key or "result" not in kept:
            kept = {"key": self.key, "result": compute()}
            write_json(path, kept)
        result: T = kept["result"]
        return result

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            return read_json(path)
        except RunError:  # not there, or cut off by a full disk
            return {}
