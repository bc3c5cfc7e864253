"""Writes trained components as the libraries that use them read them."""

from __future__ import annotations

from pathlib import Path

from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components, find_component
from fedrag.config.scenario import Config
from fedrag.files import replacing_folder
from fedrag.types import State


def export_models(
    config: Config, state: State, folder: Path, components: Components = SHIPPED, *, copies: bool = True
) -> list[Path]:
    """Write each component into a folder of its name, and return the folders.

    Args:
        config: The scenario.
        state: Tensors by component.
        folder: Holds the new folders.
        components: What can be trained, by name.
        copies: Whether to write those that hold a copy of the base model, too.
    """
    written = []
    for name, tensors in state.items():
        steps = find_component(components, name).steps()
        if copies or not steps.export_copies_base:
            with replacing_folder(folder / name) as partial:
                steps.export(config, tensors, partial)
            written.append(folder / name)
    return written
