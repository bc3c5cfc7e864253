"""Models that stay loaded in a process, so that all clients in it share the same base weights."""

from __future__ import annotations

import hashlib
from dataclasses import astuple
from typing import Any

import torch
import transformers

from fedrag.config.run_settings import SimulationConfig
from fedrag.config.scenario import Config
from fedrag.federation.lora_factors import SIDE
from fedrag.memory import free_memory
from fedrag.models.generator import Generator
from fedrag.models.retriever import Retriever
from fedrag.types import Component, State
from fedrag.weights.compute import best_device, computing_dtype, cpu_count, number_format
from fedrag.weights.identity import identity_of
from fedrag.weights.store import FetchedModel, find_model, verify_model

# The only module global. A process loads and verifies each base model once, and sets its state before each use. A model
# that was fetched again, or lies in another home, is another one.
_RESIDENT: dict[tuple[Any, ...], Generator | Retriever] = {}

_PREFIX_SHARE = 0.25  # of the free memory; training needs the rest


def resident_generator(config: Config, device: str) -> Generator:
    """Return the generator of a scenario with the adapter that was set last; the first call loads it."""
    dtype = computing_dtype(config.models.generator_dtype, device)
    settings = config.generator
    four_bits = config.models.generator_dtype == "nf4"
    used = (settings.lora, settings.adapter_from, settings.generation_settings)
    fetched = find_model(config.models.generator)
    key = (fetched, used, dtype, four_bits, device)
    if key not in _RESIDENT:
        _verify(fetched)
        generator = Generator.load(
            fetched,
            settings.lora,
            dtype,
            device,
            four_bits,
            own_settings=settings.generation_settings == "model",
            whole_texts=settings.adapter_from == "question",
        )
        if settings.adapter_from == "question":
            generator.prefix_bytes = prefix_bytes(config, device)  # of the memory that the weights leave free
        _RESIDENT[key] = generator
    found = _RESIDENT[key]
    assert isinstance(found, Generator)
    return found


def resident_retriever(config: Config, device: str) -> Retriever:
    """Return the retriever of a scenario with the state that was set last; the first call loads it."""
    dtype = computing_dtype(config.models.retriever_dtype, device)
    used = (config.retriever.model_dump_json(), config.rag.chunk_tokens)
    fetched = find_model(config.models.retriever)
    key = (fetched, used, dtype, device)
    if key not in _RESIDENT:
        _verify(fetched)
        _RESIDENT[key] = Retriever.load(fetched, config.retriever, device, dtype, config.rag.chunk_tokens)
    found = _RESIDENT[key]
    assert isinstance(found, Retriever)
    return found


def prefix_bytes(config: Config, device: str) -> float:
    """Return the memory for prefixes, if a generator's adapter acts from the question on."""
    return _PREFIX_SHARE * (free_share(config.simulation, device) or 0.0)


def _verify(fetched: FetchedModel) -> None:
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # they would break up our own
    verify_model(fetched)


class RoundModels:
    """The generator and the retriever in the state that a request carries.

    Each is loaded and set at its first use, so a round that needs no generator never loads one.

    Args:
        config: The scenario.
        state: Tensors by component; a missing component is used untouched.
    """

    def __init__(self, config: Config, state: State) -> None:
        self._config = config
        self._state = state
        self._device = best_device()
        self._set: set[Component] = set()

    @property
    def generator(self) -> Generator:
        """The generator, with the adapter of the round's start until it is trained."""
        generator = resident_generator(self._config, self._device)
        if "generator" not in self._set:
            generator.set_adapter(self._state.get("generator") or generator.initial_state(seed=0))
            self._set.add("generator")
        return generator

    @property
    def retriever(self) -> Retriever:
        """The retriever, in the state of the round's start until it is trained."""
        retriever = resident_retriever(self._config, self._device)
        if "retriever" not in self._set:
            retriever.set_state(self._state.get("retriever") or retriever.initial_state(seed=0))
            self._set.add("retriever")
        return retriever

    def generator_key(self, untouched: bool) -> str:
        """Return all that answer scores depend on: weights, adapter, number format, processor, threads, torch."""
        generator = self.generator
        adapter = hashlib.sha256()
        tensors = {} if untouched else self._state.get("generator", {})
        # With a B of zeros an adapter changes nothing, whatever its A.
        if any(tensor.any() for name, tensor in tensors.items() if ".lora_B." in name or SIDE in name):
            adapter.update(self._config.generator.lora.model_dump_json().encode())
            for name, tensor in tensors.items():
                adapter.update(name.encode() + tensor.tobytes())
        parts = (
            *astuple(identity_of(generator.fetched)),
            adapter.hexdigest(),
            number_format(self._config.models.generator_dtype, self._device),
            self._device,
            torch.backends.cpu.get_cpu_capability(),
            torch.get_num_threads(),
            torch.__version__,
        )
        return "|".join(map(str, parts))


def free_share(simulation: SimulationConfig, device: str) -> float | None:
    """Return the bytes that this process may take; Ray actors, which train at the same time, share them."""
    free = free_memory(device)
    if free is None or simulation.grid != "ray":
        return free
    if device == "cuda":
        return free * (simulation.gpus_per_actor or 1.0 / max(1, simulation.actors))
    return free / (simulation.actors or max(1, cpu_count() // simulation.cpus_per_actor))
