"""What a scenario would do, without doing it: sites, examples, bytes, memory."""

from __future__ import annotations

import math
from pathlib import Path

from fedrag.config import Config, components_of, trained_components
from fedrag.data.site_folder import load_sites
from fedrag.facts import needs_generator
from fedrag.models.resident import best_device, generator_dtype, initial_state
from fedrag.models.store import count_parameters, find_model
from fedrag.types import Component

_WIRE_BYTES = {"float32": 4, "bfloat16": 2}
_AGGREGATOR_BYTES = 20  # two 64-bit limbs and one float32 an element


def plan_lines(config: Config) -> list[str]:
    """Describe what a scenario would run, as lines for a person.

    Raises:
        FedragError: The scenario's data or models are not in order.
    """
    sites = load_sites(Path(config.data.sites), config.data.only, config.data.hold_out)
    state = initial_state(config, trained_components(config.federation))
    sizes = {component: sum(t.size for t in tensors.values()) for component, tensors in state.items()}
    lines = [
        f"{config.name}: {config.federation.rounds} rounds, schedule {config.federation.schedule}",
        "sites:",
    ]
    for site in sites:
        counts = f"{len(site.train)} train, {len(site.validation)} validation, {len(site.test)} test questions"
        sits_out = "; sits out: nothing to train on" if not site.train else ""
        lines.append(f"  {site.name}: {len(site.passages)} passages, {counts}{sits_out}")
    lines.append("trained:")
    lines += [f"  {component}: {size:,} weights in each update" for component, size in sizes.items()]
    lines += _byte_lines(config, sizes, sum(bool(site.train) for site in sites))
    lines += _memory_lines(config, sizes)
    baselines = ", ".join(config.evaluation.baselines) or "none"
    lines.append(f"then: evaluation on {config.evaluation.split} questions; baselines: {baselines}")
    return lines


def _byte_lines(config: Config, sizes: dict[Component, int], sites: int) -> list[str]:
    asked = max(1, math.ceil(config.federation.fraction * sites))
    width = _WIRE_BYTES[config.federation.wire]
    rounds = range(1, config.federation.rounds + 1)
    up = [sum(sizes[c] for c in components_of(config.federation, r)) * width for r in rounds]
    return [
        f"on the wire ({config.federation.wire}): at most {_megabytes(max(up))} from each of {asked} sites a round, "
        f"{_megabytes(sum(up) * asked)} from all sites in all rounds"
    ]


def _memory_lines(config: Config, sizes: dict[Component, int]) -> list[str]:
    retriever = count_parameters(find_model(config.models.retriever).folder) * 4
    generator = 0
    if needs_generator(config):
        dtype = generator_dtype(config.models.generator_dtype, best_device())
        generator = count_parameters(find_model(config.models.generator).folder) * dtype.itemsize
    server = sum(sizes.values()) * (4 + _AGGREGATOR_BYTES)
    processes = config.simulation.actors or 1
    return [
        f"memory: base models {_megabytes(generator + retriever)} in each of {processes} process(es), "
        f"server state {_megabytes(server)}; activations come on top"
    ]


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
