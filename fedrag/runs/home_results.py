"""What a site kept of its training at home, on disk: the weights of its own, and how each component did.

```
home/<site>/
  home.json              of which federated result it is, and the scores
  state.safetensors      the components whose weights of its own the site keeps; those of the others are the result's
```
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from fedrag.errors import RunError
from fedrag.files import read_json, replacing_folder, sha256_of, write_json
from fedrag.runs.checkpoint import join_tensors, split_tensors
from fedrag.text import plural
from fedrag.types import Component, State

HOME_FOLDER = "home"
_FACTS, _TENSORS = "home.json", "state.safetensors"


@dataclass(frozen=True, slots=True)
class HomeScore:
    """How a component did on a site's validation questions; a larger mean is better.

    Attributes:
        before: Mean with the federated weights, beside what the site had kept already of the components before it.
        after: Mean with the weights of the site's own.
        count: What the means are over: labelled questions of the retriever, tokens of answers of the generator.
        kept: Whether the site keeps its own: its measure rose, and that of no other component fell.
    """

    before: float
    after: float
    count: int
    kept: bool


@dataclass(frozen=True, slots=True)
class TrainedAtHome:
    """What a site has after its training at home.

    Attributes:
        kept: The tensors of its own that it keeps, by component.
        scores: How each component that it trained did.
        why: Why it trained none, or did not get to the end; "" where it did.
    """

    kept: State = field(default_factory=dict)
    scores: dict[Component, HomeScore] = field(default_factory=dict)
    why: str = ""


def key_of(state: State, epochs: int) -> str:
    """Return what tells a training at home from that of another federated result, or of more passes."""
    digest = hashlib.sha256(str(epochs).encode())
    for name, tensor in join_tensors("state", state).items():
        digest.update(f"{name}{tensor.shape}".encode() + tensor.tobytes())
    return digest.hexdigest()


def save_home(folder: Path, key: str, found: TrainedAtHome) -> None:
    """Write what a site has after its training at home, whole or not at all."""
    with replacing_folder(folder) as partial:
        save_file(join_tensors("state", found.kept), partial / _TENSORS)
        scores = {component: asdict(score) for component, score in found.scores.items()}
        sha256 = sha256_of(partial / _TENSORS)
        write_json(partial / _FACTS, {"of": key, "scores": scores, "why": found.why, "sha256": sha256})


def load_home(folder: Path, key: str = "") -> TrainedAtHome | None:
    """Return what `save_home` wrote; None where nothing is there, or it is of another result.

    Args:
        folder: Where it lies.
        key: From `key_of`; "": whatever it is of.

    Raises:
        RunError: It is damaged.
    """
    path = folder / _FACTS
    if not path.is_file():
        return None
    try:
        facts = read_json(path)
        if key and facts["of"] != key:
            return None
        if facts["sha256"] != sha256_of(folder / _TENSORS):
            raise RunError(f"{folder}: is damaged: its tensors are not those that were written")
        scores = {component: HomeScore(**score) for component, score in facts["scores"].items()}
        return TrainedAtHome(split_tensors("state", load_file(folder / _TENSORS)), scores, facts["why"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder}: is damaged: {error}") from None


def home_scores(run: Path) -> dict[str, dict[Component, HomeScore]]:
    """Return how the components did at each site that trained at home, by the site's name; none where none did."""
    folders = sorted((run / HOME_FOLDER).glob(f"*/{_FACTS}"))
    return {path.parent.name: found.scores for path in folders if (found := load_home(path.parent))}


def kept_text(sites: Mapping[str, Mapping[Component, HomeScore]]) -> str:
    """Return in words how many sites kept weights of their own; "" where none trained at home.

    >>> gain, loss = HomeScore(0.4, 0.5, 9, True), HomeScore(0.4, 0.3, 9, False)
    >>> kept_text({"a": {"retriever": gain, "generator": loss}, "b": {"retriever": loss}})
    '1 of 2 sites kept weights of their own: generator 0, retriever 1'
    """
    if not sites:
        return ""
    kept, by_component = kept_counts(sites)
    parts = ", ".join(f"{component} {count}" for component, count in by_component.items())
    return f"{kept} of {plural(len(sites), 'site')} kept weights of their own" + (f": {parts}" if parts else "")


def kept_counts(sites: Mapping[str, Mapping[Component, HomeScore]]) -> tuple[int, dict[Component, int]]:
    """Return how many sites kept weights of their own, and how many did of each component that any of them trained."""
    components = sorted({component for scores in sites.values() for component in scores})
    kept = sum(any(score.kept for score in scores.values()) for scores in sites.values())
    return kept, {c: sum(scores[c].kept for scores in sites.values() if c in scores) for c in components}
