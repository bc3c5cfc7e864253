"""The state of the chosen components together: where it begins and how it is exported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components, find_component
from fedrag.config.scenario import Config
from fedrag.files import replacing_folder
from fedrag.seeding import derive_seed
from fedrag.types import Component, State


def initial_state(config: Config, names: Sequence[Component], components: Components = SHIPPED) -> State:
    """Return what every site starts from, made by the server from the seed."""
    return {
        name: find_component(components, name).steps().initial_state(config, derive_seed(config.seed, "initial", name))
        for name in names
    }


def export_models(config: Config, state: State, folder: Path, components: Components = SHIPPED) -> None:
    """Write each component into a folder of its name, as the libraries that use it read it."""
    for name, tensors in state.items():
        with replacing_folder(folder / name) as partial:
            find_component(components, name).steps().export(config, tensors, partial)
