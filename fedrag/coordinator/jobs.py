"""Runs of a coordinator: begin, stop, go on. The service does the work; here it is told what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

from fedrag.components.base_models import base_tensor_hashes
from fedrag.config.scenario import Config
from fedrag.coordinator.outcome import Outcome, read_outcome, write_outcome
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.errors import ConfigError, ServiceError
from fedrag.runs.run_folder import RunFolder


def begin_run(folder: ServerFolder, config: Config) -> str:
    """Make a run's folder, note that it is on, and return its name.

    Raises:
        ServiceError: The coordinator does not run, or another run is on.
        ModelError: The coordinator has not fetched a model of the scenario.
    """
    _require_service(folder)
    base_tensor_hashes(config)
    _refuse_second(folder)
    run = RunFolder.create(config, root=folder.runs)
    write_outcome(run.path, Outcome("waiting"))
    try:
        folder.begin(run.path.name)
    except ServiceError:
        shutil.rmtree(run.path)
        raise
    return run.path.name


def resume_run(folder: ServerFolder, name: str) -> None:
    """Note that a run that was stopped goes on; one that goes on already is left alone.

    Raises:
        ConfigError: There is no such run, or it is finished.
        ServiceError: The coordinator does not run, or another run is on.
    """
    path = folder.runs / name
    if not path.is_dir():
        raise ConfigError(f"{name}: there is no such run; there are: {', '.join(run_names(folder)) or 'none'}")
    _require_service(folder)
    current = folder.current()
    if current.get("run") == name and current["stop"]:
        raise ServiceError(f"{name} is being stopped; resume it once fedrag server status says that it is stopped")
    if current.get("run") == name:
        return
    if read_outcome(path).state == "finished":
        raise ConfigError(f"{name}: is finished; there is nothing to go on with")
    RunFolder.open(path)  # one that this version cannot read is refused here, not in the background
    folder.begin(name)
    write_outcome(path, Outcome("waiting"))


def stop_run(folder: ServerFolder) -> str:
    """Ask for the end of the run that is on, and return its name.

    Raises:
        ServiceError: No run is on.
    """
    name = str(folder.current().get("run", ""))
    if not name:
        raise ServiceError("no run is on")
    if folder.is_running:
        folder.note(stop=True)
    else:
        write_outcome(folder.runs / name, Outcome("stopped", "it was told to stop"))
        folder.end()
    return name


def run_names(folder: ServerFolder) -> list[str]:
    """Return the names of all runs, the oldest first."""
    paths = [path for path in folder.runs.glob("*") if (path / "scenario.toml").is_file()]
    return [path.name for path in sorted(paths, key=_created)]


def _created(path: Path) -> float:
    return (path / "scenario.toml").stat().st_mtime


def _require_service(folder: ServerFolder) -> None:
    if not folder.is_running:
        raise ServiceError(f"the coordinator does not run; start it with: fedrag server start {folder.path}")


def _refuse_second(folder: ServerFolder) -> None:
    if name := folder.current().get("run"):
        raise ServiceError(f"{name} is running; wait for it, or end it with: fedrag server stop {folder.path}")
