"""The state from which the chosen components begin."""

from __future__ import annotations

from collections.abc import Sequence

from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components, find_component
from fedrag.config.scenario import Config
from fedrag.seeding import derive_seed
from fedrag.types import Component, State


def initial_state(config: Config, names: Sequence[Component], components: Components = SHIPPED) -> State:
    """Return what every site starts from, made by the server from the seed."""
    return {
        name: find_component(components, name).steps().initial_state(config, derive_seed(config.seed, "initial", name))
        for name in names
    }
