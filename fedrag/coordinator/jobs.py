"""Begin, stop and resume a coordinator's runs: notes in its folder, which the service acts on."""

from __future__ import annotations

import shutil
from pathlib import Path

from fedrag.components.base_models import base_tensor_hashes
from fedrag.components.own_functions import own_facts, require_same_functions
from fedrag.config.scenario import Config
from fedrag.coordinator.operator_log import recorded
from fedrag.coordinator.outcome import TOLD_TO_STOP, Outcome, read_outcome, write_outcome
from fedrag.coordinator.secure_sites import require_secure_sites
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.errors import ConfigError, ServiceError
from fedrag.runs.more_rounds import extend_run
from fedrag.runs.run_folder import RunFolder, alone_in_run
from fedrag.tracking.follow import require_trackers


@recorded("run", "config")
def begin_run(folder: ServerFolder, config: Config) -> str:
    """Make a run's folder, note it as the current run, and return its name.

    It raises the errors of `checked`, too.

    Raises:
        ServiceError: The coordinator is not running, or another run is in progress.
    """
    _require_service(folder)
    config = checked(folder, config)
    _refuse_second(folder)
    run = RunFolder.create(config.on_its_day(), root=folder.runs)
    write_outcome(run.path, Outcome("waiting"))
    try:
        folder.begin(run.path.name)
    except ServiceError:
        shutil.rmtree(run.path)
        raise
    return run.path.name


def checked(folder: ServerFolder, config: Config) -> Config:
    """Return a scenario that this coordinator can run, with the run that it starts from named in full.

    Raises:
        ConfigError: A tracker of the scenario, or its module of functions, is not installed; the registered sites
            cannot make its secure sum; or it asks for noise that only many simulated clients can bear.
        ModelError: The coordinator has not fetched a model of the scenario.
        RunError: The scenario starts from a run that is not finished, or was trained on other models.
        ConfigError: It starts from a run whose tensors do not fit it.
    """
    if config.simulation.site_noise.is_on:
        raise ConfigError(
            f"simulation.site_noise.epsilon = {config.simulation.site_noise.epsilon:g}: noise that covers whole sites "
            "is for simulations of many clients alone: of some organisations it would leave nothing of what they have "
            "learnt; set it to 0, and privacy.epsilon to cover single questions"
        )
    require_trackers(config.tracking.to)
    require_secure_sites(folder, config)
    base_tensor_hashes(config)
    own_facts(config.own)
    return _with_start(folder, config)


def _with_start(folder: ServerFolder, config: Config) -> Config:
    """Name in full the run that a scenario starts from, one of the coordinator's own or any other, and check it."""
    if not config.start_from:
        return config
    from fedrag.components.earlier_result import read_earlier_result  # it imports torch, which other runs do without

    own = folder.runs / config.start_from
    path = own if (own / "scenario.toml").is_file() else Path(config.start_from)
    named = config.model_copy(update={"start_from": str(path.resolve())})
    read_earlier_result(named)
    return named


@recorded("resume", "name", "rounds")
def resume_run(folder: ServerFolder, name: str, rounds: int | None = None) -> list[str]:
    """Note a stopped run as the current one; do nothing where it is the current one already.

    Args:
        folder: The coordinator's folder.
        name: The run's name.
        rounds: Rounds that the run is to have in all, of a finished one too; None: as many as it has.

    Returns:
        Lines on what a reader of the extended run must know.

    Raises:
        ConfigError: There is no such run, or it is finished, or it cannot have so many rounds.
        RunError: A finished run has no checkpoint to go on from.
        ServiceError: The coordinator is not running, or another run is in progress.
    """
    path = folder.runs / name
    if not path.is_dir():
        raise ConfigError(f"{name}: there is no such run; there are: {', '.join(run_names(folder)) or 'none'}")
    _require_service(folder)
    current = folder.current()
    if current.get("run") == name and current["stop"]:
        raise ServiceError(f"{name} is being stopped; resume it once fedrag server status says that it is stopped")
    if current.get("run") == name and rounds is not None:
        raise ServiceError(f"{name} is in progress; stop it, and then resume it with --rounds {rounds}")
    if current.get("run") == name:
        return []
    if read_outcome(path).state == "finished" and rounds is None:
        raise ConfigError(f"{name}: is finished; there is nothing to resume, unless --rounds gives it more rounds")
    run = RunFolder.open(path)  # one that this version cannot read is refused here, not in the background
    require_same_functions(run)
    _refuse_second(folder)
    differs = _extended(run, rounds) if rounds is not None else []
    folder.begin(name)
    write_outcome(path, Outcome("waiting"))
    return differs


def _extended(run: RunFolder, rounds: int) -> list[str]:
    """Give a run more rounds, and return what a reader must know; a finished one must get more than it has."""
    if run.is_finished and rounds == run.config.federation.rounds:
        raise ConfigError(f"{run.path.name}: is finished with its {rounds} rounds; --rounds can only be larger")
    with alone_in_run(run.path):
        return extend_run(run, rounds)[1]


@recorded("stop")
def stop_run(folder: ServerFolder) -> str:
    """Ask the service to stop the current run, and return its name.

    Raises:
        ServiceError: No run is in progress.
    """
    name = str(folder.current().get("run", ""))
    if not name:
        raise ServiceError("no run is in progress")
    if folder.is_running:
        folder.note(stop=True)
    else:
        write_outcome(folder.runs / name, Outcome("stopped", TOLD_TO_STOP))
        folder.end()
    return name


def run_names(folder: ServerFolder) -> list[str]:
    """Return the names of all runs, oldest first."""
    paths = [path for path in folder.runs.glob("*") if (path / "scenario.toml").is_file()]
    return [path.name for path in sorted(paths, key=_created)]


def _created(path: Path) -> float:
    return (path / "scenario.toml").stat().st_mtime


def hindrances(folder: ServerFolder) -> list[str]:
    """Return why a run could not begin now, in sentences."""
    found = []
    for require in (_require_service, _refuse_second):
        try:
            require(folder)
        except ServiceError as error:
            found.append(str(error))
    return found


def _require_service(folder: ServerFolder) -> None:
    if not folder.is_running:
        raise ServiceError(f"the coordinator is not running; start it with: fedrag server start {folder.path}")


def _refuse_second(folder: ServerFolder) -> None:
    if name := folder.current().get("run"):
        raise ServiceError(f"{name} is running; wait for it, or stop it with: fedrag server stop {folder.path}")
