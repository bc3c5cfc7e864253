"""The learning rate, which rises once and falls once over all rounds that train a component."""

from __future__ import annotations

import math

from fedrag.config.scenario import Config
from fedrag.config.schedule import rounds_training
from fedrag.config.training_settings import OptimizerSection
from fedrag.types import COMPONENTS, Component


def learning_rate(settings: OptimizerSection, done: float) -> float:
    """Return the learning rate after a share of the whole training.

    >>> learning_rate(OptimizerSection(learning_rate=1.0, warmup=0.0), 0.25)
    0.75
    """
    if done < settings.warmup:
        return settings.learning_rate * (done / settings.warmup)
    decay = (done - settings.warmup) / (1.0 - settings.warmup) if settings.warmup < 1.0 else 0.0
    factor = {
        "constant": 1.0,
        "linear": 1.0 - decay,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * decay)),
    }[settings.schedule]
    return settings.learning_rate * factor


def rates_of_round(config: Config, components: tuple[Component, ...], round_number: int) -> dict[Component, float]:
    """Return the learning rate in the middle of a round, by component; one of your own has a rate of its own.

    >>> config = Config.from_dict({"name": "a", "data": {"sites": "b"}, "retriever": {"learning_rate": 1.0}})
    >>> rates_of_round(config, ("retriever",), 2)["retriever"]  # of two, after the fall began at 0.05
    0.26315789473684215
    """
    return {
        component: learning_rate(getattr(config, component), _middle(config, component, round_number))
        for component in components
        if component in COMPONENTS
    }


def _middle(config: Config, component: Component, round_number: int) -> float:
    """Return the share of a component's whole training that is done in the middle of a round."""
    past = rounds_training(config.federation, component, before=round_number)
    return (past + 0.5) / rounds_training(config.federation, component)
