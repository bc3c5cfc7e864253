"""The one place that decides how batches are read: which path training, scoring and decoding take, and why no faster.

Paths, the fastest last:

- `plain`: padded rows, each whole.
- `shared`: a first passage that several rows have is read once for all of them; without gradient.
- `tree`: what rows begin with alike is read once, in one row without padding; on a CPU.
- `prefix`: the base model alone reads what comes before the question and remembers it; the scenario asks for it.
- `cuda graph`: passes that are recorded once and played again as a whole; in training on a GPU.

On a CPU passes run in two threads beside one another where they do not disturb each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from transformers import PreTrainedConfig, PreTrainedModel

from fedrag.models.attention import uses_cpu_attention
from fedrag.models.four_bits import is_packed
from fedrag.models.generator import Generator
from fedrag.passes.cuda_graph import waits_for_launches
from fedrag.passes.plain import keeps_logits
from fedrag.passes.prefix import remembers_all
from fedrag.passes.threads import changes_with_texts, passes_at_a_time

PathName = Literal["plain", "shared", "tree", "prefix", "cuda graph"]


@dataclass(frozen=True, slots=True)
class Traits:
    """What of a model, its settings and the machine decides how its batches are read.

    Attributes:
        seq2seq: Whether prompts go to an encoder.
        windowed: Whether a layer does not keep the keys and values of all tokens.
        dropout: Whether training draws random numbers.
        growing: Whether rotary embeddings grow with the longest text so far.
        from_question: Whether the adapter acts from the question on.
        other_attention: Whether its attention cannot read trees.
        every_logit: Whether it computes the logits of all positions, whatever it is asked.
        on_gpu: Whether it computes on a GPU.
        large: Whether it keeps a GPU busy without recordings.
        packed: Whether its weights are in 4 bits.
    """

    seq2seq: bool = False
    windowed: bool = False
    dropout: bool = False
    growing: bool = False
    from_question: bool = False
    other_attention: bool = False
    every_logit: bool = False
    on_gpu: bool = False
    large: bool = False
    packed: bool = False


@dataclass(frozen=True, slots=True)
class Path:
    """How one kind of work reads its batches.

    Attributes:
        name: The path.
        threads: Passes at a time.
        not_taken: The faster ways that this device has, each with the word that says why it is not taken.
    """

    name: PathName
    threads: int
    not_taken: dict[str, str]

    def __str__(self) -> str:
        why = "; ".join(f"no {way}: {word}" for way, word in self.not_taken.items())
        return f"{self.name}, {self.threads} at a time" + (f" ({why})" if why else "")


@dataclass(frozen=True, slots=True)
class Paths:
    """The paths of a model."""

    training: Path
    scoring: Path
    decoding: Path

    def facts(self) -> dict[str, Any]:
        """Return what is recorded of a run: by kind of work its path, passes at a time, and what was not taken."""
        kinds = {"training": self.training, "scoring": self.scoring, "decoding": self.decoding}
        return {kind: {"path": p.name, "at_a_time": p.threads, "not_taken": p.not_taken} for kind, p in kinds.items()}


def paths_of(traits: Traits) -> Paths:
    """Return how a model's batches are read with the threads that torch has now."""
    return _choose(traits, passes_at_a_time(on_gpu=traits.on_gpu))


@lru_cache
def _choose(traits: Traits, threads: int) -> Paths:
    disturbed = _first((traits.from_question, "prefix"), (traits.growing, "growing"))
    whole = _first((traits.seq2seq, "seq2seq"), (traits.windowed, "window"))  # why nothing is read beforehand
    graph = whole or disturbed or _first((traits.dropout, "dropout"), (traits.large, "large"), (traits.packed, "4-bit"))
    tree = (
        whole
        or disturbed
        or _first((traits.dropout, "dropout"), (traits.other_attention, "attention"), (traits.every_logit, "logits"))
    )
    beside = disturbed or _first((traits.dropout, "dropout"))
    if traits.from_question:
        training: PathName = "prefix"
        scoring: PathName = "prefix"
        decoding: PathName = "prefix"
    else:
        training = "cuda graph" if traits.on_gpu and not graph else "plain" if tree else "tree"
        scoring = "tree" if not tree else "plain" if whole else "shared"
        decoding = "shared" if not whole and not disturbed and threads > 1 else "plain"
    return Paths(
        training=_path(training, threads, beside, {"cuda graph": graph} if traits.on_gpu else {"tree": tree}),
        scoring=_path(scoring, threads, disturbed, {} if traits.on_gpu else {"tree": tree}),
        decoding=_path(decoding, threads, disturbed or whole, {}),
    )


def _path(name: PathName, threads: int, alone: str, not_taken: dict[str, str]) -> Path:
    # What is remembered is read no more, which is faster than a tree.
    faster = {way: word for way, word in not_taken.items() if word and (name, way) != ("prefix", "tree")}
    if threads > 1 and alone:
        faster["threads"] = alone
    return Path(name, 1 if alone else threads, faster)


def _first(*reasons: tuple[bool, str]) -> str:
    """Return the word of the first reason that holds; none: an empty one."""
    return next((word for holds, word in reasons if holds), "")


def traits_of(generator: Generator) -> Traits:
    """Return the traits of a loaded generator."""
    model = generator.model
    on_gpu = model.device.type == "cuda"
    return traits_of_model(
        model,
        from_question=generator.prefix_bytes is not None,
        on_gpu=on_gpu,
        large=on_gpu and not waits_for_launches(model),
        packed=is_packed(model),
        other_attention=not uses_cpu_attention(model),
    )


def traits_of_model(model: PreTrainedModel, **told: bool) -> Traits:
    """Return the traits of a model, whose weights need not be there.

    Args:
        model: The model.
        told: Traits that its classes and its configuration do not tell.
    """
    config: PreTrainedConfig = model.config
    return Traits(
        seq2seq=bool(config.is_encoder_decoder),
        windowed=not config.is_encoder_decoder and not remembers_all(config),
        dropout=any(value for name, value in config.to_dict().items() if "drop" in name),
        growing=changes_with_texts(config),
        every_logit=not keeps_logits(model),
        **told,
    )
