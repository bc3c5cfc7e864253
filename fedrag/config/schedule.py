"""Decides which components each round trains."""

from __future__ import annotations

from fedrag.config.scenario import FederationConfig
from fedrag.types import COMPONENTS, Component


def components_of(config: FederationConfig, round_number: int) -> tuple[Component, ...]:
    """Return the components that a round trains (rounds are numbered from 1).

    >>> components_of(FederationConfig(rounds=4, schedule="alternate"), 2)
    ('retriever',)
    """
    match config.schedule:
        case "joint":
            return ("generator", "retriever")
        case "alternate":
            return ("generator",) if round_number % 2 == 1 else ("retriever",)
        case "staged":
            other: Component = "generator" if config.stage_first == "retriever" else "retriever"
            return (config.stage_first,) if round_number <= config.stage_rounds else (other,)
        case single:
            return (single,)


def trained_components(config: FederationConfig) -> tuple[Component, ...]:
    """Return the components that any round trains."""
    return tuple(component for component in COMPONENTS if rounds_training(config, component))


def rounds_training(config: FederationConfig, component: Component, before: int | None = None) -> int:
    """Return how many rounds train a component, of all rounds or of those before one.

    >>> rounds_training(FederationConfig(rounds=5, schedule="alternate"), "retriever")
    2
    """
    last = config.rounds if before is None else before - 1
    return sum(component in components_of(config, number) for number in range(1, last + 1))
