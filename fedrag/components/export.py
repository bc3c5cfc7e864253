"""Writes trained components as the libraries that use them read them."""

from __future__ import annotations

from pathlib import Path

from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components, find_component
from fedrag.config.scenario import Config
from fedrag.errors import ConfigError
from fedrag.files import replacing_folder
from fedrag.runs.facts import require_same_models
from fedrag.runs.run_folder import RunFolder
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


def export_new(config: Config, state: State, out: Path, components: Components = SHIPPED) -> list[Path]:
    """Write each component into a new folder of its name, whole models where the library needs one.

    Raises:
        ConfigError: A folder exists already.
        ModelError: A base model is not fetched.
    """
    for name in state:
        if (out / name).exists():
            raise ConfigError(f"{out / name}: exists already; choose another folder")
    return export_models(config, state, out, components)


def export_run(path: Path | str, out: Path | str, *, components: Components = SHIPPED) -> list[Path]:
    """Write a run's trained components below a folder, whole models where the library needs one.

    Args:
        path: The run folder.
        out: Holds the new folders, one for each component.
        components: What can be trained, by name; one's own among them.

    Returns:
        The new folders.

    Raises:
        RunError: The run is not finished, or damaged, or a base model is no longer the one it was trained with.
        ConfigError: A folder exists already.
        ModelError: A base model is not fetched.
    """
    run = RunFolder.open(Path(path))
    state = run.load_result()
    require_same_models(run, state)
    return export_new(run.config, state, Path(out), components)
