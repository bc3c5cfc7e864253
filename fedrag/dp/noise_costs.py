"""Noised training as a scenario has it, component by component: what its cost is worked out from."""

from __future__ import annotations

from fedrag.config.scenario import Config
from fedrag.config.schedule import rounds_training, trained_components
from fedrag.dp.feasibility import NoisePlan


def planned_steps(config: Config) -> int:
    """Return the steps of all components in all rounds of a run: those that a site takes that is asked in each."""
    rounds = sum(rounds_training(config.federation, name) for name in trained_components(config.federation))
    return config.privacy.steps * rounds


def plan_of_weights(config: Config, weights: int) -> NoisePlan:
    """Return the noised training of a component with so many trained weights."""
    settings = config.privacy
    delta = None if settings.delta == "auto" else settings.delta
    return NoisePlan(settings.epsilon, planned_steps(config), weights, settings.sample_rate, delta)
