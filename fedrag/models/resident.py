"""Models that stay loaded in a process: every client that runs in it uses the same base weights."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
import transformers

from fedrag.config.scenario import Config, SimulationConfig
from fedrag.memory import free_memory
from fedrag.models.generator import Generator
from fedrag.models.retriever import Retriever
from fedrag.types import Component, State
from fedrag.weights.compute import best_device, computing_dtype, cpu_count, number_format
from fedrag.weights.store import FetchedModel, find_model, verify_model

# The one module global: a base model is loaded and verified once per process, its state reset on each use.
_RESIDENT: dict[tuple[Any, ...], Generator | Retriever] = {}

_PREFIX_SHARE = 0.25  # of the free memory, for what the base model has read: training needs the rest


def resident_generator(config: Config, device: str) -> Generator:
    """Return the generator of a scenario, loaded at the first call; its adapter is whatever was set last."""
    dtype = computing_dtype(config.models.generator_dtype, device)
    settings = config.generator
    four_bits = config.models.generator_dtype == "nf4"
    key = ("generator", config.models.generator, settings.lora, settings.adapter_from, dtype, four_bits, device)
    if key not in _RESIDENT:
        fetched = _verified(config.models.generator)
        generator = Generator.load(fetched, settings.lora, dtype, device, four_bits)
        if settings.adapter_from == "question":
            generator.prefix_bytes = prefix_bytes(config, device)  # of what the weights have left free
        _RESIDENT[key] = generator
    found = _RESIDENT[key]
    assert isinstance(found, Generator)
    return found


def resident_retriever(config: Config, device: str) -> Retriever:
    """Return the retriever of a scenario, loaded at the first call; its state is whatever was set last."""
    dtype = computing_dtype(config.models.retriever_dtype, device)
    key = ("retriever", config.models.retriever, config.retriever.model_dump_json(), dtype, device)
    if key not in _RESIDENT:
        fetched = _verified(config.models.retriever)
        _RESIDENT[key] = Retriever.load(fetched, config.retriever, device, dtype)
    found = _RESIDENT[key]
    assert isinstance(found, Retriever)
    return found


def prefix_bytes(config: Config, device: str) -> float:
    """Return the memory for what a generator's base model has read, where its adapter acts from the question on."""
    return _PREFIX_SHARE * (free_share(config.simulation, device) or 0.0)


def _verified(name: str) -> FetchedModel:
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # loading takes a second; its bars break ours
    fetched = find_model(name)
    verify_model(fetched)
    return fetched


class RoundModels:
    """Gives the generator and the retriever in the state that a request carries.

    A model is loaded, and its state set, when it is first asked for: a round that needs no generator
    never loads one.

    Args:
        config: The scenario.
        state: Tensors by component; a component that is absent is used as it was fetched.
    """

    def __init__(self, config: Config, state: State) -> None:
        self._config = config
        self._state = state
        self._device = best_device()
        self._set: set[Component] = set()

    @property
    def generator(self) -> Generator:
        """The generator, its adapter as of the round's start until it is trained."""
        generator = resident_generator(self._config, self._device)
        if "generator" not in self._set:
            generator.set_adapter(self._state.get("generator") or generator.initial_state(seed=0))
            self._set.add("generator")
        return generator

    @property
    def retriever(self) -> Retriever:
        """The retriever, its state as of the round's start until it is trained."""
        retriever = resident_retriever(self._config, self._device)
        if "retriever" not in self._set:
            retriever.set_state(self._state.get("retriever") or retriever.initial_state(seed=0))
            self._set.add("retriever")
        return retriever

    def generator_key(self, untouched: bool) -> str:
        """Return what answer scores depend on: weights, adapter, number format, processor, threads, torch."""
        generator = self.generator
        adapter = hashlib.sha256()
        tensors = {} if untouched else self._state.get("generator", {})
        # An adapter whose B is all zero is no adapter, whatever its A.
        if any(tensor.any() for name, tensor in tensors.items() if ".lora_B." in name):
            adapter.update(self._config.generator.lora.model_dump_json().encode())
            for name, tensor in tensors.items():
                adapter.update(name.encode() + tensor.tobytes())
        parts = (
            generator.fetched.tensors_sha256,
            adapter.hexdigest(),
            number_format(self._config.models.generator_dtype, self._device),
            self._device,
            torch.backends.cpu.get_cpu_capability(),
            torch.get_num_threads(),
            torch.__version__,
        )
        return "|".join(map(str, parts))


def free_share(simulation: SimulationConfig, device: str) -> float | None:
    """Return the bytes that this process may take; clients in Ray actors train beside one another."""
    free = free_memory(device)
    if free is None or simulation.grid != "ray":
        return free
    if device == "cuda":
        return free * (simulation.gpus_per_actor or 1.0 / max(1, simulation.actors))
    return free / (simulation.actors or max(1, cpu_count() // simulation.cpus_per_actor))
