"""What a site's reply is in a secure sum: a vector of whole numbers, and what the server reads from the sum of all.

Each component has one part: the weighted update. All sites weigh the same, or each by a number of examples that nobody
is told; the server divides by the sum of the weights, which is a number of the vector as others are. The named numbers
stand in one more part, always in Z_2^64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fedrag.config.averaging import averaging_of
from fedrag.config.run_settings import FederationConfig
from fedrag.errors import MessageError, TrainingDiverged
from fedrag.federation.messages import Reply, Request
from fedrag.federation.update import all_finite
from fedrag.secure_sum.fixed_point import Layout, Part, Ring, RingVector, from_ring, to_ring
from fedrag.types import Array, Component

NUMBERS = "named-numbers"  # a hyphen: no component has this name
MEANS = ("loss", "last_loss", "norm", "scale", "tau_r")
TOTALS = ("steps", "tokens")
_TRAIN_NUMBERS = ("weight", "examples", "clipped", "told", *MEANS, *TOTALS)
_VALIDATION_NUMBERS = ("sum", "count")
_LARGEST_NUMBER = 2.0**32
_TINY = 1e-30
_SLACK = 1.001  # of the limit of a norm: float32 and roundings


@dataclass(frozen=True, slots=True)
class OpenedSum:
    """What the server learns of a round.

    Attributes:
        update: The mean difference of each component, flat.
        told: Means over the sites of their losses and the like, and totals of examples, steps and tokens, by name.
        clipped: How many updates were drawn in to the largest norm, by component, where any was.
        noise: L2 norm that the roundings have in a mean, about, as a share of the mean's, by component.
    """

    update: dict[Component, Array] = field(default_factory=dict)
    told: dict[str, float] = field(default_factory=dict)
    clipped: dict[Component, int] = field(default_factory=dict)
    noise: dict[Component, float] = field(default_factory=dict)


def train_layout(settings: FederationConfig, request: Request, sites: int) -> Layout:
    """Return the parts of a training reply.

    Args:
        settings: Those of the rounds.
        request: What is asked.
        sites: Sites of the roster.
    """
    numbers = Part(NUMBERS, len(request.components) * len(_TRAIN_NUMBERS), 64, _LARGEST_NUMBER, sites)
    parts = []
    for component in request.components:
        averaging = averaging_of(settings, component)
        bound = averaging.secure_clip_norm * (settings.secure_max_examples if averaging.weighting == "examples" else 1)
        parts.append(Part(component, request.manifest(component).size, settings.secure_bits, bound, sites))
    return (numbers, *parts)


def validation_layout(request: Request, sites: int) -> Layout:
    """Return the parts of a reply to a validation."""
    return (Part(NUMBERS, len(request.components) * len(_VALIDATION_NUMBERS), 64, _LARGEST_NUMBER, sites),)


def train_vector(
    settings: FederationConfig, request: Request, reply: Reply, layout: Layout, chance: bytes
) -> RingVector:
    """Return a training reply as whole numbers; an update with a greater norm than agreed is drawn in to it.

    Args:
        settings: Those of the rounds.
        request: What was asked; the reply holds an update of each of its components.
        reply: What the site would tell without masks.
        layout: The parts.
        chance: 32 bytes, from which the directions of rounding are drawn.

    Raises:
        TrainingDiverged: An update holds NaN or infinity.
    """
    parts = {part.name: part for part in layout}
    numbers: list[float] = []
    vector: dict[str, Ring] = {}
    for place, component in enumerate(request.components):
        flat = reply.update[component]
        if not all_finite(flat):
            raise TrainingDiverged(f"the update of the {component} is not finite")
        size = math.sqrt(float(np.einsum("i,i->", flat, flat, dtype=np.float64)))
        averaging = averaging_of(settings, component)
        clipped = size > averaging.secure_clip_norm
        if clipped:
            flat = (flat * (averaging.secure_clip_norm / size)).astype(np.float32)
        examples = reply.num_examples[component]
        weight = min(examples, settings.secure_max_examples) if averaging.weighting == "examples" else 1
        vector[component] = to_ring(flat, parts[component], _chance(chance, place + 1), weight)
        told = {name: reply.metrics.get(f"{component}.{name}", 0.0) for name in (*MEANS, *TOTALS)}
        told |= {
            "weight": weight,
            "examples": examples,
            "clipped": clipped,
            "told": f"{component}.loss" in reply.metrics,
        }
        numbers += [_number(told[name]) for name in _TRAIN_NUMBERS]
    return {NUMBERS: to_ring(np.array(numbers), parts[NUMBERS], _chance(chance, 0)), **vector}


def validation_vector(request: Request, reply: Reply, layout: Layout, chance: bytes) -> RingVector:
    """Return the sums and counts of a validation as whole numbers."""
    names = [f"{component}.{name}" for component in request.components for name in _VALIDATION_NUMBERS]
    numbers = np.array([_number(reply.metrics.get(name, 0.0)) for name in names])
    return {NUMBERS: to_ring(numbers, layout[0], chance)}


def open_training(
    settings: FederationConfig, request: Request, total: RingVector, layout: Layout, sites: int
) -> OpenedSum:
    """Return the means that a sum of training replies tells.

    Args:
        settings: Those of the rounds.
        request: What was asked.
        total: The sum without masks.
        layout: Its parts.
        sites: How many replies were added.

    Raises:
        MessageError: Weights, ranges or the norm of a mean are none that honest sites can have.
    """
    parts = {part.name: part for part in layout}
    opened = OpenedSum()
    rows = from_ring(total[NUMBERS], parts[NUMBERS], sites).reshape(len(request.components), len(_TRAIN_NUMBERS))
    for component, row in zip(request.components, rows.tolist(), strict=True):
        numbers = dict(zip(_TRAIN_NUMBERS, row, strict=True))
        weight = numbers["weight"]
        averaging = averaging_of(settings, component)
        most = sites * (settings.secure_max_examples if averaging.weighting == "examples" else 1)
        if not sites <= weight <= most or weight != round(weight):
            raise MessageError(f"the weights of the {component} are together not within {sites} and {most}")
        part = parts[component]
        mean = from_ring(total[component], part, sites)
        mean /= weight
        size = math.sqrt(float(np.einsum("i,i->", mean, mean)))
        rounding = math.sqrt(part.size) * sites / (part.scale * weight)
        if not size <= _SLACK * averaging.secure_clip_norm + rounding:
            raise MessageError(
                f"the mean {component} update has norm {size:.3g}, above the {averaging.secure_clip_norm:g} to which "
                "each site draws in its own (secure_clip_norm)"
            )
        opened.update[component] = mean.astype(np.float32)
        # A rounding by chance has a variance of f (1 - f) of a step squared, which is 1/6 on average.
        opened.noise[component] = math.sqrt(part.size * sites / 6) / (part.scale * weight) / max(size, _TINY)
        opened.told.update(_told(component, numbers))
        if clipped := round(numbers["clipped"]):
            opened.clipped[component] = clipped
    return opened


def open_validation(request: Request, total: RingVector, layout: Layout, sites: int) -> dict[Component, float]:
    """Return the mean over all validation questions of the sites of a sum, for each component that has any.

    Raises:
        MessageError: The sum is out of range.
    """
    rows = from_ring(total[NUMBERS], layout[0], sites).reshape(len(request.components), len(_VALIDATION_NUMBERS))
    found = zip(request.components, rows.tolist(), strict=True)
    return {component: value / count for component, (value, count) in found if count >= 1.0}


def _told(component: Component, numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers of a component under the names of a reply's: means over the sites that told any, totals."""
    told = {f"{component}.examples": round(numbers["examples"])}
    if not (tellers := round(numbers["told"])):
        return dict(told)
    means = {f"{component}.{name}": round(numbers[name] / tellers, 6) for name in MEANS if numbers[name]}
    totals = {f"{component}.{name}": round(numbers[name]) for name in TOTALS}
    return {**told, **means, **totals}


def _number(value: float) -> float:
    """Return a number that the sum can hold: none that is not finite."""
    return float(value) if math.isfinite(value) else 0.0


def _chance(chance: bytes, place: int) -> bytes:
    """Return 32 bytes for one part; no two parts share their directions of rounding."""
    return bytes(a ^ b for a, b in zip(chance, place.to_bytes(32, "big"), strict=True))
