"""Follows a run's log with trackers: each is given every round once, while the run goes on and after a resume.

Whenever it starts, a tracker is given the log from its first round: a run that is resumed goes back to its last
checkpoint. So each tracker knows what it holds already, or begins anew. A tracker that fails is left out with one line:
it never ends a run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from fedrag.display import Display
from fedrag.errors import ConfigError, RunError
from fedrag.runs.run_folder import RunFolder
from fedrag.tracking.run_log import RunLog, Step

QUIET = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_MODE": "offline",
    "GRADIO_ANALYTICS_ENABLED": "False",
}
"""Variables that keep trackers from the network, and from reporting to their makers, unless you set them otherwise."""


class Tracker(Protocol):
    """Where a run can be shown."""

    place: str
    """What it writes, and how to look at it, in a few words."""

    def log(self, step: Step) -> None:
        """Take a round; one that it holds already changes nothing."""

    def finish(self, log: RunLog, *, whole: bool) -> None:
        """Take the final figures, and close.

        Args:
            log: The run.
            whole: Whether the run came to its end.
        """


def _tensorboard(log: RunLog) -> Tracker:
    from fedrag.tracking.tensorboard_files import TensorboardFiles  # an extra

    return TensorboardFiles(log)


def _mlflow(log: RunLog) -> Tracker:
    from fedrag.tracking.mlflow_store import MlflowStore  # an extra

    return MlflowStore(log)


def _wandb(log: RunLog) -> Tracker:
    from fedrag.tracking.wandb_run import WandbRun  # an extra

    return WandbRun(log)


def _trackio(log: RunLog) -> Tracker:
    from fedrag.tracking.trackio_database import TrackioDatabase  # an extra

    return TrackioDatabase(log)


TRACKERS: dict[str, Callable[[RunLog], Tracker]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
    "trackio": _trackio,
}


def require_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are not installed.

    Raises:
        ConfigError: One is not.
    """
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(f"tracking with {name} needs its library; run: pip install 'fedrag[{name}]'")


def track_finished(path: Path, names: Sequence[str], display: Display) -> None:
    """Show a finished run in trackers.

    Raises:
        ConfigError: A tracker is not installed.
        RunError: It is no run, or is not finished.
    """
    require_trackers(names)
    run = RunFolder.open(path)
    if not run.is_finished:
        raise RunError(f"{path}: is not finished; tracking.to in its scenario follows a run while it goes on")
    with following(run, dict.fromkeys(names), display):
        pass


class Follower:
    """Trackers that follow one run.

    Args:
        run: Its folder.
        names: Names of trackers, of `TRACKERS`.
        display: Shows a line for each tracker, and for one that fails.
    """

    def __init__(self, run: RunFolder, names: Collection[str], display: Display) -> None:
        self._log = RunLog(run)
        self._display = display
        self._waiting = list(names)
        self._trackers: dict[str, Tracker] = {}
        self._done = 0

    def catch_up(self) -> None:
        """Give the trackers the rounds that they were not given yet; the first call opens them."""
        for name in self._waiting:
            with self._left_out_if_it_fails(name):
                self._trackers[name] = TRACKERS[name](self._log)
                self._display.say(f"tracked with {name}: {self._trackers[name].place}")
        self._waiting = []
        for step in [step for step in self._log.steps() if step.number > self._done] if self._trackers else []:
            for name, tracker in list(self._trackers.items()):
                with self._left_out_if_it_fails(name):
                    tracker.log(step)
            self._done = step.number

    def finish(self, *, whole: bool) -> None:
        """Close the trackers, with the final figures where the run came to its end."""
        if whole:
            self.catch_up()
        for name, tracker in list(self._trackers.items()):
            with self._left_out_if_it_fails(name):
                tracker.finish(self._log, whole=whole)
        self._trackers = {}

    @contextmanager
    def _left_out_if_it_fails(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a library of others: whatever it raises must not end the run
            self._trackers.pop(name, None)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._display.say(f"tracking with {name} is left out from here on, and the run goes on: {reason}")


@contextmanager
def following(run: RunFolder, names: Collection[str], display: Display) -> Iterator[Follower]:
    """Yield trackers that follow a run, and close them when it ends, however it does."""
    for name, value in QUIET.items() if names else ():
        os.environ.setdefault(name, value)
    follower = Follower(run, names, display)
    try:
        yield follower
    except BaseException:
        follower.finish(whole=False)
        raise
    follower.finish(whole=True)
