"""How many weights of a component its rounds train: where one factor of an adapter is frozen, those of the other."""

from __future__ import annotations

from fedrag.config.averaging import averaging_of
from fedrag.config.run_settings import FederationConfig
from fedrag.config.scenario import Config
from fedrag.config.schedule import rounds_training
from fedrag.dp.feasibility import NoisePlan
from fedrag.dp.noise_costs import plan_of_weights
from fedrag.federation.lora_factors import frozen_factor, trained_part
from fedrag.types import Component, Tensors


def trained_sizes(config: FederationConfig, component: Component, tensors: Tensors) -> tuple[int, ...]:
    """Return how many weights a round trains; two numbers where the factors take turns and differ in size.

    >>> import numpy as np
    >>> adapter = {"q.lora_A.weight": np.zeros((2, 3)), "q.lora_B.weight": np.zeros((5, 2))}
    >>> [trained_sizes(FederationConfig(rule=rule), "retriever", adapter) for rule in ("fedavg", "ffa", "rolora")]
    [(16,), (10,), (10, 6)]

    Args:
        config: The settings of the federation.
        component: The component.
        tensors: Its state.
    """
    rule, rounds = averaging_of(config, component).rule, max(1, rounds_training(config, component))
    parts = (trained_part(tensors, frozen_factor(rule, past)) for past in range(min(2, rounds)))
    return tuple(dict.fromkeys(sum(tensor.size for tensor in part.values()) for part in parts))


def component_plan(config: Config, name: Component, tensors: Tensors) -> NoisePlan:
    """Return the noised training of a component of this state; where the factors take turns, that of the larger."""
    return plan_of_weights(config, max(trained_sizes(config.federation, name, tensors)))
