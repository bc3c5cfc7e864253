"""Keeps child processes alive: starts them, restarts a dead one, ends all of them together."""

from __future__ import annotations

import ctypes
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fedrag.files import storage_errors
from fedrag.service.child_log import ChildLog, Noise, append
from fedrag.service.stopping import signals_postponed

PATIENCE_S = 15.0  # after SIGTERM, before SIGKILL
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 30.0
STEADY_S = 60.0  # a child that lived this long starts again without waiting
WATCH_S = 0.5
LOG_WAIT_S = 2.0  # for the last lines of a child that has ended
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class Child:
    """A process that runs as long as its parent does.

    Attributes:
        name: Its name in messages.
        command: Program and arguments.
        log: File that takes what it prints, within bounds.
        environment: Variables in addition to the parent's.
        meanings: What an exit code means, for the operator.
        death_signal: What the system sends it when its parent dies; one with children of its own must be able
            to end them.
        noise: What of its log is counted instead of written.
        folder: Where it runs; None where its parent does.
        leftovers: Files of an earlier one that was killed, which must be gone before it starts.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    meanings: Mapping[int, str] = field(default_factory=dict)
    death_signal: signal.Signals = signal.SIGKILL
    noise: Noise = field(default_factory=Noise)
    folder: Path | None = None
    leftovers: Sequence[Path] = ()
    _output: ChildLog | None = None
    _process: subprocess.Popen[bytes] | None = None
    _started: float = 0.0
    _wait_s: float = 0.0
    _next_start: float = 0.0

    @property
    def pid(self) -> int:
        """Its process id; 0 while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    @property
    def exit_code(self) -> int | None:
        """How it ended the last time; None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start it. It is ended by the system when its parent dies, however that happens."""
        self._end_group()
        with storage_errors(self.log):
            self.log.parent.mkdir(parents=True, exist_ok=True)
            append(self.log, b"")
        for path in self.leftovers:
            path.unlink(missing_ok=True)
        with signals_postponed():
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                cwd=self.folder,
                preexec_fn=_dies_with_parent(self.death_signal),
                start_new_session=True,  # Ctrl-C reaches the parent alone, which ends all in order
            )
            assert isinstance(self._process.stdout, io.BufferedReader)
            self._output = ChildLog(self.log, self.noise)
            self._output.follow(self._process.stdout)
        self._started = time.monotonic()

    def tend(self, say: Callable[[str], None]) -> None:
        """Start it if it does not run; one that dies repeatedly waits longer each time."""
        if self.pid:
            return
        now = time.monotonic()
        if self._process is None:
            self.start()
        elif self._next_start == 0.0:
            steady = now - self._started > STEADY_S
            self._wait_s = FIRST_WAIT_S if steady or not self._wait_s else min(2 * self._wait_s, LONGEST_WAIT_S)
            self._next_start = now + self._wait_s
            say(f"{self.name} {self._how_it_ended()}; it starts again in {self._wait_s:.0f} s ({self.log})")
        elif now >= self._next_start:
            self._next_start = 0.0
            self.start()

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self._process and self.pid:
            self._process.send_signal(number)

    def end(self, patience_s: float = PATIENCE_S) -> None:
        """Ask it to end; kill it where it does not."""
        self.signal(signal.SIGTERM)
        if self._process:
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._end_group()

    def _end_group(self) -> None:
        """Kill what is left of its own children: one that was killed could not end them."""
        if self._process:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        if self._output:
            self._output.wait(LOG_WAIT_S)

    def _how_it_ended(self) -> str:
        code = self.exit_code
        assert code is not None
        if code in self.meanings:
            return self.meanings[code]
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with code {code}"


def die_with_parent(parent: int, last: Callable[[], None] = lambda: None) -> None:
    """Let this process end when its parent is gone.

    The system's own death signal will not do where a thread of the parent starts the process: it comes when
    that thread ends.

    Args:
        parent: Process id of the parent.
        last: What is done before the end.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        last()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _dies_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    """Return what a process does between fork and exec, so that the system ends it when its parent is gone."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: threads of the parent may hold locks then
    return lambda: prctl(_PR_SET_PDEATHSIG, death_signal)
