"""Chooses how batches are read: one path each for training, scoring and decoding, and why it is no faster one.

The paths, the fastest last:

- `plain`: padded rows, each read whole.
- `shared`: the first passage that several rows have in common is read once, without gradient.
- `tree`: whatever several rows begin with is read once, in a single row without padding; on a CPU.
- `prefix`: the base model alone reads what comes before the question, once; the scenario asks for it.
- `cuda graph`: passes that are captured once and replayed as a whole; in training on a GPU.

On a CPU two passes run at a time, each in a thread of its own, unless they would change each other's results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from fedrag.config.scenario import Config
from fedrag.models.adapters import lora_targets
from fedrag.models.attention import uses_cpu_attention
from fedrag.models.four_bits import is_packed
from fedrag.models.generator import Generator, model_without_weights
from fedrag.passes.cuda_graph import is_launch_bound
from fedrag.passes.plain import supports_logits_to_keep
from fedrag.passes.prefix import remembers_all
from fedrag.passes.threads import has_dynamic_rope, passes_at_a_time
from fedrag.weights.compute import best_device, computing_dtype
from fedrag.weights.store import FetchedModel, count_parameters

PathName = Literal["plain", "shared", "tree", "prefix", "cuda graph"]


@dataclass(frozen=True, slots=True)
class Traits:
    """The properties of a model, its settings and the machine that decide how its batches are read.

    Attributes:
        seq2seq: Whether prompts go to an encoder.
        windowed: Whether a layer drops the keys and values of some tokens.
        dropout: Whether the base has dropout of its own, and training draws random numbers.
        dynamic_rope: Whether rotary embeddings depend on the longest text so far.
        from_question: Whether the adapter acts from the question on.
        other_attention: Whether its attention cannot read trees.
        every_logit: Whether it always computes the logits of all positions.
        on_gpu: Whether it computes on a GPU.
        large: Whether it keeps a GPU busy without CUDA graphs.
        packed: Whether its weights are in 4 bits.
        experts: Whether an adapter acts on a mixture's experts, whose weights it replaces for the length of a pass.
    """

    seq2seq: bool = False
    windowed: bool = False
    dropout: bool = False
    dynamic_rope: bool = False
    from_question: bool = False
    other_attention: bool = False
    every_logit: bool = False
    on_gpu: bool = False
    large: bool = False
    packed: bool = False
    experts: bool = False

    @property
    def keeps_all(self) -> bool:
        """Whether it is a causal model that keeps the keys and values of all tokens."""
        return not (self.seq2seq or self.windowed)


@dataclass(frozen=True, slots=True)
class ReadingPath:
    """How one kind of work reads its batches.

    Attributes:
        name: The path.
        threads: Passes at a time.
        not_taken: The faster ways on this device, each with the reason, in a word, why it is not taken.
    """

    name: PathName
    threads: int
    not_taken: dict[str, str]

    def facts(self) -> dict[str, Any]:
        """Return what a run's facts say of it."""
        return {"path": self.name, "at_a_time": self.threads, "not_taken": self.not_taken}


@dataclass(frozen=True, slots=True)
class ReadingPaths:
    """The paths of a model, by kind of work."""

    training: ReadingPath
    scoring: ReadingPath
    decoding: ReadingPath

    def facts(self) -> dict[str, Any]:
        """Return what a run's facts say: for each kind of work its path, passes at a time, and ways not taken."""
        return {kind: getattr(self, kind).facts() for kind in ("training", "scoring", "decoding")}


def reading_text(facts: Mapping[str, Any]) -> str:
    """Return the facts of a model's paths as one line.

    >>> plain = {"path": "plain", "at_a_time": 1, "not_taken": {"tree": "dropout"}}
    >>> reading_text({"training": plain, "scoring": plain})
    'passes: training, scoring plain, 1 at a time (no tree: dropout)'
    """
    kinds: dict[str, list[str]] = {}
    for kind, path in facts.items():
        reasons = "; ".join(f"no {way}: {word}" for way, word in path["not_taken"].items())
        text = f"{path['path']}, {path['at_a_time']} at a time" + (f" ({reasons})" if reasons else "")
        kinds.setdefault(text, []).append(kind)
    return "passes: " + "; ".join(f"{', '.join(found)} {text}" for text, found in kinds.items())


def paths_of(traits: Traits, threads: int | None = None) -> ReadingPaths:
    """Return how a model's batches are read with a number of torch's threads; None: the current one."""
    return _choose(traits, passes_at_a_time(on_gpu=traits.on_gpu, threads=threads))


@lru_cache
def _choose(traits: Traits, threads: int) -> ReadingPaths:
    # Each of these is the word for why something is not possible; empty: it is.
    no_cache = _first((traits.seq2seq, "seq2seq"), (traits.windowed, "window"))
    no_shared_state = _first((traits.from_question, "prefix"), (traits.dynamic_rope, "rope"))
    no_threads = no_shared_state or _first((traits.experts, "experts"))
    dropout = _first((traits.dropout, "dropout"))
    no_graph = no_cache or no_threads or dropout or _first((traits.large, "large"), (traits.packed, "4-bit"))
    no_tree = (
        no_cache
        or no_shared_state
        or dropout
        or _first((traits.other_attention, "attention"), (traits.every_logit, "logits"))
    )
    if traits.from_question:
        training: PathName = "prefix"
        scoring: PathName = "prefix"
        decoding: PathName = "prefix"
    else:
        training = "cuda graph" if traits.on_gpu and not no_graph else "plain" if no_tree else "tree"
        scoring = "tree" if not no_tree else "plain" if no_cache else "shared"
        decoding = "plain" if traits.on_gpu or no_cache or no_threads else "shared"
    return ReadingPaths(
        training=_path(
            training, threads, no_threads or dropout, {"cuda graph": no_graph} if traits.on_gpu else {"tree": no_tree}
        ),
        scoring=_path(scoring, threads, no_threads, {} if traits.on_gpu else {"tree": no_tree}),
        decoding=_path(decoding, threads, no_threads or no_cache, {}),
    )


def _path(name: PathName, threads: int, no_threads: str, not_taken: dict[str, str]) -> ReadingPath:
    # A remembered prefix is not read again, which is faster than a tree.
    faster = {way: word for way, word in not_taken.items() if word and (name, way) != ("prefix", "tree")}
    if threads > 1 and no_threads:
        faster["threads"] = no_threads
    return ReadingPath(name, 1 if no_threads else threads, faster)


def _first(*reasons: tuple[bool, str]) -> str:
    """Return the word of the first reason that holds, or an empty one."""
    return next((word for holds, word in reasons if holds), "")


def traits_of(generator: Generator) -> Traits:
    """Return the traits of a loaded generator."""
    model = generator.model
    on_gpu = model.device.type == "cuda"
    return traits_of_model(
        model,
        experts=bool(generator.targets.parameters),
        from_question=generator.prefix_bytes is not None,
        on_gpu=on_gpu,
        large=on_gpu and not is_launch_bound(_footprint(model), model.device),
        packed=is_packed(model),
        other_attention=not uses_cpu_attention(model),
    )


def planned_paths(config: Config, generator: FetchedModel, threads: int) -> ReadingPaths:
    """Return how a scenario's generator will read its batches on this machine, before its weights are loaded.

    Args:
        config: The scenario.
        generator: Its generator.
        threads: torch's threads in a client's process.
    """
    from_question, device = config.generator.adapter_from == "question", best_device()
    model = model_without_weights(generator, whole_texts=from_question)
    on_gpu = device == "cuda"
    weight_bytes = count_parameters(generator.folder) * computing_dtype(config.models.generator_dtype, device).itemsize
    traits = traits_of_model(
        model,
        experts=bool(lora_targets(model, config.generator.lora).parameters),
        from_question=from_question,
        on_gpu=on_gpu,
        large=on_gpu and not is_launch_bound(weight_bytes, torch.device(device)),
        packed=config.models.generator_dtype == "nf4",
        other_attention=on_gpu or model.config._attn_implementation != "sdpa",
    )
    return paths_of(with_dropout(traits, config.generator.dropout), threads)


def with_dropout(traits: Traits, is_on: bool) -> Traits:
    """Return the traits with which training chooses its path: a base without dropout has none to be on."""
    return replace(traits, dropout=traits.dropout and is_on)


def _footprint(model: PreTrainedModel) -> float:
    weight_bytes: float = model.get_memory_footprint()  # type: ignore[no-untyped-call]  # transformers gives it no types
    return weight_bytes


def traits_of_model(model: PreTrainedModel, **others: bool) -> Traits:
    """Return the traits of a model; its weights need not be loaded.

    Args:
        model: The model.
        others: Traits that neither its class nor its configuration tells.
    """
    config: PreTrainedConfig = model.config
    return Traits(
        seq2seq=bool(config.is_encoder_decoder),
        windowed=not config.is_encoder_decoder and not remembers_all(config),
        dropout=any(value for name, value in config.to_dict().items() if "drop" in name),
        dynamic_rope=has_dynamic_rope(config),
        every_logit=not supports_logits_to_keep(model),
        **others,
    )
