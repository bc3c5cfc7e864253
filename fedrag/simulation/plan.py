"""What a scenario would do, without doing it: sites, examples, bytes, memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from fedrag.config.scenario import Config
from fedrag.config.schedule import components_of, trained_components
from fedrag.data.site_folder import load_sites
from fedrag.federation.codec import byte_count, state_wire
from fedrag.models.four_bits import WEIGHT_BYTES
from fedrag.models.generator import count_four_bit_weights
from fedrag.models.resident import initial_state, prefix_bytes
from fedrag.simulation.preflight import check_scenario, held_out_folders, sites_that_train
from fedrag.text import plural, size_text
from fedrag.types import SPLITS, Component, Site
from fedrag.weights.base_models import required_models
from fedrag.weights.compute import best_device, computing_dtype, cpu_count
from fedrag.weights.store import count_parameters

_AGGREGATOR_BYTES = 20  # two 64-bit limbs and one float32 a weight
_OPTIMIZER_BYTES = 12  # a gradient and the two moments of AdamW, float32


def plan_lines(config: Config) -> list[str]:
    """Describe what a scenario would run, as lines for a person.

    Raises:
        FedragError: The scenario's data or models are not in order.
    """
    sites = load_sites(Path(config.data.sites), config.data.only, config.data.hold_out)
    check_scenario(config, sites)
    able = sites_that_train(config, sites)
    state = initial_state(config, trained_components(config.federation))
    sizes = {component: sum(tensor.size for tensor in tensors.values()) for component, tensors in state.items()}
    federation = config.federation
    return [
        f"{config.name}: {plural(federation.rounds, 'round')}, schedule {federation.schedule}",
        "",
        *_site_lines(config, sites, able),
        "",
        *_training_lines(config, able, sizes),
        _byte_line(config, sizes, len(able)),
        _memory_line(config, sizes, len(sites)),
        _evaluation_line(config),
    ]


def _site_lines(config: Config, sites: Sequence[Site], able: Sequence[Site]) -> list[str]:
    """Return a row a site: passages and questions by split."""
    width = max(len(name) for name in ("Site", "all", *(site.name for site in sites)))
    names = {site.name for site in able}
    counts = [[len(site.passages), *(len(site.split(split)) for split in SPLITS)] for site in sites]
    lines = [f"  {'Site':<{width}}  Passages  Train  Validation   Test"]
    for site, row in zip(sites, counts, strict=True):
        lines.append(_row(site.name, row, width) + ("" if site.name in names else "   sits out: nothing to train on"))
    if len(sites) > 1:
        lines.append(_row("all", [sum(column) for column in zip(*counts, strict=True)], width))
    held_out = [folder.name for folder in held_out_folders(config)]
    return [*lines, f"  held out: {', '.join(held_out)}"] if held_out else lines


def _row(name: str, counts: Sequence[int], width: int) -> str:
    passages, train, validation, test = (f"{count:,}" for count in counts)
    return f"  {name:<{width}}  {passages:>8}  {train:>5}  {validation:>10}  {test:>5}"


def _training_lines(config: Config, able: Sequence[Site], sizes: dict[Component, int]) -> list[str]:
    """Return a line a component: how much is trained, on how many questions."""
    lines = []
    for component, size in sizes.items():
        rounds = sum(component in components_of(config.federation, r) for r in range(1, config.federation.rounds + 1))
        labelled = component == "retriever" and not config.retriever.uses_lsr
        questions = sum(bool(question.passage_ids) or not labelled for site in able for question in site.train)
        epochs = config.generator.epochs if component == "generator" else config.retriever.epochs
        lines.append(
            f"{component}: {size:,} weights learn from {questions:,} {'labelled ' if labelled else ''}questions, "
            f"{plural(epochs, 'pass', 'passes')} a round, in {plural(rounds, 'round')}"
        )
    if config.federation.fraction < 1:
        lines.append(f"each round asks {_asked(config, len(able))} of {len(able)} sites")
    return lines


def _byte_line(config: Config, sizes: dict[Component, int], able: int) -> str:
    """Say what the arrays of all messages come to; the text around them is some kilobytes a message."""
    federation = config.federation
    down = sum(byte_count(size, state_wire(federation.wire)) for size in sizes.values())
    back = {component: byte_count(size, federation.wire) for component, size in sizes.items()}
    up = [sum(back[c] for c in components_of(federation, r)) for r in range(1, federation.rounds + 1)]
    delivered = sum(byte_count(size, "float32") for size in sizes.values()) * able * federation.deliver
    total = _asked(config, able) * (down * federation.rounds + sum(up)) + delivered
    return (
        f"bytes ({federation.wire}): in a round at most {size_text(down)} to a site and {size_text(max(up))} back; "
        f"at most {size_text(total)} in all"
    )


def _memory_line(config: Config, sizes: dict[Component, int], clients: int) -> str:
    """Say what the weights take; what a forward pass needs on top depends on the texts."""
    models = required_models(config)
    bases = {component: count_parameters(model.folder) for component, model in models.items()}
    dtype = computing_dtype(config.models.generator_dtype, best_device())
    packed = 0
    if "generator" in models and config.models.generator_dtype == "nf4":
        packed = count_four_bit_weights(models["generator"])
    copies = 2 if config.retriever.weights == "full" else 1  # the base is kept, to take differences from
    learner = computing_dtype(config.models.retriever_dtype, best_device())
    shorter = config.retriever.weights == "lora" and learner.itemsize < 4  # a copy to train on
    encoders = bases["retriever"] * (4 * copies + shorter * learner.itemsize)
    generator = (bases.get("generator", 0) - packed) * dtype.itemsize + packed * WEIGHT_BYTES
    base = generator + encoders
    training = max(sizes.values()) * _OPTIMIZER_BYTES
    server = sum(sizes.values()) * (4 + _AGGREGATOR_BYTES)
    processes = "this process"
    if config.simulation.grid == "ray":
        room = max(1, cpu_count() // config.simulation.cpus_per_actor)
        processes = f"this process and each of {plural(min(config.simulation.actors or room, clients), 'actor')}"
    read = ""
    if config.generator.adapter_from == "question":
        read = f", and up to {size_text(prefix_bytes(config, best_device()))} of passages that were read"
    return (
        f"memory: base models {size_text(base)} and training {size_text(training)} in {processes}, "
        f"server {size_text(server)}; activations come on top{read}"
    )


def _evaluation_line(config: Config) -> str:
    evaluation = config.evaluation
    if evaluation.split == "none":
        return "then: no evaluation (evaluation.split is none)"
    arms = ["untouched"] * evaluation.untouched + ["federated", *evaluation.baselines]
    questions = "all questions" if evaluation.split == "all" else f"the {evaluation.split} questions"
    where = "held-out sites" if evaluation.sites == "held-out" else "sites that take part"
    return f"then: {', '.join(arms)} measured on {questions} of the {where}"


def _asked(config: Config, sites: int) -> int:
    return max(1, math.ceil(config.federation.fraction * sites - 1e-9))
