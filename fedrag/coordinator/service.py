"""The coordinator as a service: the SuperLink, the reverse proxy, and an executor for the current run."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from fedrag.coordinator.conduct import Conduct
from fedrag.coordinator.console_token import renew_token
from fedrag.coordinator.database_room import DatabaseRoom, prepare_database
from fedrag.coordinator.flower import superlink_command
from fedrag.coordinator.jobs import run_names
from fedrag.coordinator.notify import Notifier
from fedrag.coordinator.outcome import TOLD_TO_STOP, Outcome, read_outcome, sites_without_result, write_outcome
from fedrag.coordinator.readers import let_readers_in
from fedrag.coordinator.reverse_proxy import is_ready, reverse_proxy
from fedrag.coordinator.round_lines import RoundLines
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.errors import RunError, ServiceError, StorageError
from fedrag.runs.run_folder import RunFolder
from fedrag.security.certificates import days_left
from fedrag.service.children import Child
from fedrag.service.environment import QUIET
from fedrag.service.stopping import Stop, stop_on_signals

TICK_S = 0.3
DATABASE = "superlink.db"
LOOK_S = 10.0  # between two searches for sites that missed a result
AGAIN_S = 600.0  # before a result is offered again to a site that did not accept it
READY_S = 60.0
TRIES = 3  # an executor that dies this often without a new round has a fault that a restart does not cure
FULL_S = 10.0  # between two attempts to write what a full disk refused
EVERYWHERE = ("0.0.0.0", "::")

_ENVIRONMENT = {**QUIET, "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1"}


def serve(folder: ServerFolder, say: Callable[[str], None]) -> None:
    """Run the coordinator until SIGTERM or Ctrl-C.

    Args:
        folder: The coordinator's folder.
        say: Takes a line for the operator.

    Raises:
        ServiceError: Another process serves the folder, or a child does not become ready.
    """
    with folder.lock():
        let_readers_in(folder.path, folder.config.readers)
        folder.announce_release()  # a new version may have been installed
        stop_on_signals()
        renew_token(folder)
        superlink, proxy = _superlink(folder), reverse_proxy(folder)
        executor = _Executor(folder, say)
        redelivery = _Redelivery(folder, say)
        notifier = Notifier(folder, say)
        room = DatabaseRoom(folder.path / DATABASE)
        renewal = _Renewal(folder.path / "server.crt", superlink, proxy, say)
        try:
            _start(folder, superlink, proxy, say)
            trouble = ""
            while True:
                superlink.tend(say)
                proxy.tend(say)
                try:
                    renewal.tend()
                    executor.tend()
                    redelivery.tend()
                    notifier.tend()
                    room.tend()
                    trouble = ""
                except StorageError as error:  # the sites' connections and the console stay up
                    if str(error) != trouble:
                        say(str(error))
                    trouble = str(error)
                    time.sleep(FULL_S)
                time.sleep(TICK_S)
        except Stop:
            say("the coordinator stops")
        finally:
            for child in (executor.child, redelivery.child, proxy, superlink):
                child.end()


def enter_sites(folder: ServerFolder) -> None:
    """Register the sites with the SuperLink, and unregister those that were removed."""
    for site in folder.register.sites(removed=True):
        folder.enter(site)


def _superlink(folder: ServerFolder) -> Child:
    path = folder.path
    command = superlink_command(folder.link, path / "server.crt", path / "server.key", path / DATABASE)
    environment = {**_ENVIRONMENT, "FLWR_HOME": str(path / "flower")}
    return Child("SuperLink", command, folder.logs / "superlink.log", environment)


def _start(folder: ServerFolder, superlink: Child, proxy: Child, say: Callable[[str], None]) -> None:
    """Start both and wait until a site can connect."""
    prepare_database(folder.path / DATABASE)
    superlink.start()
    _wait(superlink, folder.link.is_ready)
    enter_sites(folder)
    proxy.start()
    host = "127.0.0.1" if folder.config.listen in EVERYWHERE else folder.config.listen  # `::` is all of both kinds
    _wait(proxy, lambda: is_ready(folder.config.port, folder.path / "ca.crt", 1.0, host))
    left = days_left(folder.path / "server.crt", datetime.now(UTC))
    say(f"ready: sites reach it at {folder.config.address}; the certificate expires in {left} days")


def _wait(child: Child, ready: Callable[[], bool]) -> None:
    end = time.monotonic() + READY_S
    while not ready():
        if not child.pid:
            raise ServiceError(f"the {child.name} does not start; its log says why: {child.log}")
        if time.monotonic() > end:
            raise ServiceError(f"the {child.name} is not ready after {READY_S:g} s; its log: {child.log}")
        time.sleep(TICK_S)


class _Renewal:
    """Restarts the SuperLink and reloads nginx when the certificate was renewed."""

    def __init__(self, certificate: Path, superlink: Child, proxy: Child, say: Callable[[str], None]) -> None:
        self._certificate = certificate
        self._superlink = superlink
        self._proxy = proxy
        self._say = say
        self._written = certificate.stat().st_mtime_ns

    def tend(self) -> None:
        written = self._certificate.stat().st_mtime_ns
        if written != self._written:
            self._written = written
            self._proxy.signal(signal.SIGHUP)
            self._superlink.end()
            self._superlink.start()
            self._say("the renewed certificate is in use")


def _executor_command(folder: ServerFolder, *finished_run: str) -> list[str]:
    """Return the command that works on the current run, or delivers a finished one to sites that missed it."""
    return [sys.executable, "-m", "fedrag.coordinator.executor", str(folder.path), *finished_run]


class _Executor:
    """Keeps a process running for the current run, and ends it when the run is to stop."""

    def __init__(self, folder: ServerFolder, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        self._run = ""
        self._rounds = -1
        self._round_lines = RoundLines(say)
        self.child = Child("executor", _executor_command(folder), folder.logs / "executor.log", _ENVIRONMENT)

    def tend(self) -> None:
        current = self._folder.current()
        name = str(current.get("run", ""))
        self._round_lines.tend()
        if current.get("stop"):
            self.child.end()
            write_outcome(self._folder.runs / name, Outcome("stopped", TOLD_TO_STOP))
            self._say(f"{name} is stopped; go on with: fedrag server resume {self._folder.path} {name}")
            self._folder.end()
        elif name and not self.child.pid:
            self._start(name, int(current["tries"]))
        elif not name and self._run and not self.child.pid:
            self._say(f"{self._run}: {self._outcome_line()}")
            self._run = ""

    def _start(self, name: str, tries: int) -> None:
        try:
            rounds = len(RunFolder.open(self._folder.runs / name).rounds())
        except RunError as error:
            self._fail(name, str(error))
            return
        if name == self._run and rounds == self._rounds and tries >= TRIES:
            self._fail(name, f"its process died {tries} times in the same round; {self.child.log} says why")
            return
        again = name == self._run
        # A full disk shows here, before it costs a try.
        write_outcome(self._folder.runs / name, Outcome("waiting"))
        self._say(f"{name}: {'the executor died; another continues' if again else 'begins'} after round {rounds}")
        self._folder.note(tries=tries + 1 if again and rounds == self._rounds else 0)
        self._run, self._rounds = name, rounds
        self._round_lines.follow(self._folder.runs / name, rounds)
        self.child.start()

    def _fail(self, name: str, why: str) -> None:
        self._run = name  # so that `tend` reports how it ended
        write_outcome(self._folder.runs / name, Outcome("failed", why))
        self._folder.end()

    def _outcome_line(self) -> str:
        outcome = read_outcome(self._folder.runs / self._run)
        return outcome.state + (f": {outcome.why}" if outcome.why else "")


class _Redelivery:
    """Delivers the newest result to sites that were offline at the end of its run, once they are back."""

    def __init__(self, folder: ServerFolder, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        self._next_look = 0.0
        self._tried: dict[str, float] = {}
        self.child = Child("redelivery", [], folder.logs / "executor.log", _ENVIRONMENT)

    def tend(self) -> None:
        if self.child.pid and self._folder.current():
            self.child.end()  # a new run comes first
        now = time.monotonic()
        if self.child.pid or self._folder.current() or now < self._next_look:
            return
        self._next_look = now + LOOK_S
        finished = [name for name in run_names(self._folder) if self._state(name) == "finished"]
        if not finished:
            return
        run = finished[-1]
        missing = sites_without_result(self._folder, RunFolder.open(self._folder.runs / run))
        online = self._online() if missing else set()
        back = [name for name in missing if name in online and now - self._tried.get(name, -AGAIN_S) >= AGAIN_S]
        if back:
            self._tried |= dict.fromkeys(back, now)
            self._say(f"{run}: the result is sent to {', '.join(back)}, offline when the run ended")
            self.child.command = _executor_command(self._folder, run)
            self.child.start()

    def _online(self) -> set[str]:
        try:
            online = {node.name for node in self._folder.link.nodes() if node.online}
            return online - Conduct(self._folder.path).set_aside()
        except ServiceError:
            return set()  # the SuperLink is restarting

    def _state(self, name: str) -> str:
        return read_outcome(self._folder.runs / name).state
