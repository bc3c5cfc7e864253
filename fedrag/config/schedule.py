"""Decides which components each round trains."""

from __future__ import annotations

import math

from fedrag.config.run_settings import FederationConfig
from fedrag.languages.catalogue import ENGLISH, Words
from fedrag.types import COMPONENTS, Component, ShippedComponent


def components_of(config: FederationConfig, round_number: int) -> tuple[Component, ...]:
    """Return the components that a round trains (rounds are numbered from 1).

    >>> components_of(FederationConfig(rounds=4, schedule="alternate"), 2)
    ('retriever',)
    >>> components_of(FederationConfig(components=("reranker", "retriever")), 1)
    ('retriever', 'reranker')
    """
    if config.components:
        return tuple(name for name in _all_names(config) if name in config.components)
    match config.schedule:
        case "joint" | "iterate":
            return ("generator", "retriever")
        case "alternate":
            return ("generator",) if round_number % 2 == 1 else ("retriever",)
        case "staged":
            other: ShippedComponent = "generator" if config.stage_first == "retriever" else "retriever"
            return (config.stage_first,) if round_number <= config.stage_rounds else (other,)
        case single:
            return (single,)


def schedule_text(config: FederationConfig, words: Words = ENGLISH) -> str:
    """Return in a few words what each round trains.

    >>> schedule_text(FederationConfig(schedule="alternate"))
    'schedule alternate'
    >>> schedule_text(FederationConfig(components=("reranker", "retriever")))
    'each trains retriever and reranker'
    """
    if config.components:
        return words("schedule.each", components=words.joined(list(map(words.component, components_of(config, 1)))))
    return words("schedule.named", schedule=config.schedule)


def trained_components(config: FederationConfig) -> tuple[Component, ...]:
    """Return the components that any round trains."""
    return tuple(name for name in _all_names(config) if rounds_training(config, name))


def rounds_training(config: FederationConfig, component: Component, before: int | None = None) -> int:
    """Return how many rounds train a component, of all rounds or of those before one.

    >>> rounds_training(FederationConfig(rounds=5, schedule="alternate"), "retriever")
    2
    """
    last = config.rounds if before is None else before - 1
    return sum(component in components_of(config, number) for number in range(1, last + 1))


def sites_needed(config: FederationConfig, able: int) -> int:
    """Return with how many replies a round of so many able sites is complete; at least 1.

    >>> sites_needed(FederationConfig(fraction=0.41), 5)
    3
    """
    return max(1, math.ceil(config.fraction * able - 1e-9))


def sites_asked(config: FederationConfig, able: int) -> int:
    """Return how many sites a round asks, those beyond the needed among them.

    >>> sites_asked(FederationConfig(fraction=0.5, overselect=0.3), 10), sites_asked(FederationConfig(), 10)
    (7, 10)
    """
    return min(able, math.ceil(sites_needed(config, able) * (1 + config.overselect) - 1e-9))


def is_validated(config: FederationConfig, round_number: int) -> bool:
    """Return whether the sites are asked for scores after a round.

    >>> [n for n in range(1, 6) if is_validated(FederationConfig(rounds=5, validate_every=2), n)]
    [2, 4, 5]
    """
    every = config.validate_every or (1 if config.keep == "best" else 0)
    return bool(every) and (round_number % every == 0 or round_number == config.rounds)


def _all_names(config: FederationConfig) -> tuple[Component, ...]:
    """Return the names that a scenario may mean, those that come with fedrag first."""
    return tuple(dict.fromkeys((*COMPONENTS, *config.components)))
