"""The server's state after a round: how its tensors are stored in one file and read back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from fedrag.errors import RunError
from fedrag.files import read_json, sha256_of
from fedrag.types import State


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The server's whole state after a round.

    Attributes:
        round_number: Number of finished rounds.
        state: Global tensors by component.
        best: The tensors that scored best in validation, by component; empty where only the last ones count.
        best_scores: Their scores.
        momentum: The direction that the server's optimizer keeps; empty where it keeps none.
        variance: The mean square that it keeps.
    """

    round_number: int
    state: State
    best: State
    best_scores: dict[str, float]
    momentum: State = field(default_factory=dict)
    variance: State = field(default_factory=dict)

    def tensors(self) -> dict[str, np.ndarray]:
        """Return all its tensors under the names that they have in a file."""
        kinds = {"state": self.state, "best": self.best, "momentum": self.momentum, "variance": self.variance}
        return {key: tensor for kind, state in kinds.items() for key, tensor in join_tensors(kind, state).items()}


def read_checkpoint(folder: Path) -> tuple[Checkpoint, dict[str, Any]]:
    """Return the checkpoint in a folder and the log line of its round.

    Raises:
        RunError: The tensors were altered or damaged.
    """
    facts = read_json(folder / "state.json")
    if facts["sha256"] != sha256_of(folder / "state.safetensors"):
        raise RunError("its tensors are not those that were written")
    tensors = load_file(folder / "state.safetensors")
    state, best, momentum, variance = (
        split_tensors(kind, tensors) for kind in ("state", "best", "momentum", "variance")
    )
    return Checkpoint(facts["round"], state, best, dict(facts["best_scores"]), momentum, variance), facts["record"]


def join_tensors(kind: str, state: State) -> dict[str, np.ndarray]:
    """Return the tensors of a state under names that keep their component and their order."""
    # A leading number keeps the order: safetensors sorts by name, and manifests depend on the order.
    return {
        f"{kind}|{component}|{i:05d}|{name}": np.asarray(tensor, order="C")  # ascontiguousarray turns () into (1,)
        for component, tensors in state.items()
        for i, (name, tensor) in enumerate(tensors.items())
    }


def split_tensors(kind: str, tensors: dict[str, np.ndarray]) -> State:
    """Return the state that `join_tensors` stored under a kind."""
    state: State = {}
    for key in sorted(tensors):
        this, component, _, name = key.split("|", 3)
        if this == kind:
            state.setdefault(component, {})[name] = tensors[key]
    return state
