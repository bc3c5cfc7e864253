"""The processes of one site that train together: the site's own, and helpers that it starts, on a GPU each.

Only the site's own process prepares a round, talks to the coordinator and writes. A helper waits for a training,
loads the models itself, takes part in every step (`fedrag.training.process_group`) and gives nothing back. Helpers
stay from one round to the next and keep their models loaded; they end with the process that started them.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist

from fedrag.errors import ConfigError, TrainingProcessLost
from fedrag.text import plural
from fedrag.training.process_group import Group
from fedrag.training.result import TrainingResult
from fedrag.weights.compute import best_device

LONGEST_WAIT_S = 1800.0  # for a step of another process, which may have to load its models first
MEETING_S = 120.0
LAST_WORDS_S = 5.0  # from the moment in which a connection breaks to that in which its process is seen to have ended
READY = b"r"
TAKEN = b"t"


class Job(Protocol):
    """A training that a helper does; it is sent to another process, so it and all it holds can be pickled."""

    def __call__(self, group: Group, /) -> TrainingResult:
        """Train as one of a group."""


class Crew:
    """The processes that train together at a site, as its own process sees them.

    Args:
        processes: How many, the site's own included; 1: there are no helpers.
    """

    def __init__(self, processes: int = 1) -> None:
        self.size = processes
        self._helpers: list[subprocess.Popen[bytes]] = []
        self._meeting: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Crew:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the helpers."""
        self.end()

    def run(self, here: Callable[[Group], TrainingResult], job: Job) -> TrainingResult:
        """Train with all processes and return what this one found.

        Args:
            here: Trains in this process.
            job: The same training, as a helper does it.

        Raises:
            TrainingProcessLost: A helper ended, or could not begin.
            ConfigError: There are fewer GPUs than processes, or a loss cannot be sent to another process.
        """
        if self.size == 1:
            return here(Group())
        sent = _pickled(job)
        try:
            self._start()
            for helper in self._helpers:
                _send(helper, sent)
            with shared_threads(self.size):
                return here(Group(0, self.size))
        except BaseException as error:
            how = self._how_one_ended() if isinstance(error, RuntimeError | OSError) else ""
            self.end()  # the others wait for a step that will not come
            if how:
                raise TrainingProcessLost(
                    f"a process that trained with this one {how}; this round is lost here, the next starts new ones"
                ) from None
            raise

    def end(self) -> None:
        """End the helpers."""
        for helper in self._helpers:
            helper.kill()
        for helper in self._helpers:
            helper.wait()
            for stream in (helper.stdin, helper.stdout):
                with contextlib.suppress(OSError):  # what was not sent yet is sent to nobody
                    if stream:
                        stream.close()
        self._helpers = []
        if self._meeting:
            if dist.is_initialized():
                dist.destroy_process_group()
            self._meeting.cleanup()
            self._meeting = None

    def _start(self) -> None:
        if self._helpers and all(helper.poll() is None for helper in self._helpers):
            return
        self.end()
        require_devices(self.size)
        self._meeting = tempfile.TemporaryDirectory(prefix="fedrag-crew-", ignore_cleanup_errors=True)
        place = Path(self._meeting.name) / "meeting"
        self._helpers = [_start_helper(Group(rank, self.size), place) for rank in range(1, self.size)]
        for helper in self._helpers:
            _await(helper, READY)
        meet(Group(0, self.size), place)

    def _how_one_ended(self) -> str:
        """Return how a helper ended, or "" where all go on."""
        end = time.monotonic() + LAST_WORDS_S
        while self._helpers and time.monotonic() < end:
            for helper in self._helpers:
                if (code := helper.poll()) is not None:
                    return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            time.sleep(0.05)
        return ""


ALONE = Crew()
"""One process that trains alone."""


def meet(group: Group, place: Path) -> None:
    """Connect the processes of a group; they talk over this machine's loopback device alone.

    Args:
        group: This process, and how many there are.
        place: A file that is not there yet, in a folder that all can write in.
    """
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ[variable] = loopback
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if best_device() == "cuda" else "gloo",
        init_method=place.absolute().as_uri(),
        rank=group.rank,
        world_size=group.size,
        timeout=timedelta(seconds=LONGEST_WAIT_S),
    )


@contextlib.contextmanager
def shared_threads(processes: int) -> Iterator[None]:
    """Leave each of some processes its share of torch's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // processes))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def require_devices(processes: int) -> None:
    """Refuse more processes than there are GPUs, where there are some.

    Raises:
        ConfigError: There are fewer.
    """
    if best_device() == "cuda" and torch.cuda.device_count() < processes:
        gpus = plural(torch.cuda.device_count(), "GPU")
        raise ConfigError(f"processes = {processes}, but torch finds {gpus} here: each process needs one of its own")


def _start_helper(group: Group, place: Path) -> subprocess.Popen[bytes]:
    """Start a helper, with a GPU of its own where there are some."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpu = visible.split(",")[group.rank] if "," in visible else str(group.rank)
    own = {"CUDA_VISIBLE_DEVICES": gpu if best_device() == "cuda" else ""}
    own["PYTHONPATH"] = os.pathsep.join(folder for folder in sys.path if folder)  # modules of one's own among them
    arguments = [str(group.rank), str(group.size), str(place), str(torch.get_num_threads()), str(os.getpid())]
    return subprocess.Popen(
        [sys.executable, "-m", "fedrag.components.crew_helper", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **own},
    )


def _pickled(job: Job) -> bytes:
    try:
        return pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"this training cannot be sent to another process ({error}); with processes = 1 it needs none, else a loss "
            "of your own must be a function of a module that can be imported"
        ) from None


def _send(helper: subprocess.Popen[bytes], job: bytes) -> None:
    assert helper.stdin is not None
    helper.stdin.write(len(job).to_bytes(8, "big") + job)
    helper.stdin.flush()
    _await(helper, TAKEN)


def _await(helper: subprocess.Popen[bytes], word: bytes) -> None:
    assert helper.stdout is not None
    if helper.stdout.read(1) != word:
        raise BrokenPipeError("the helper ended")
