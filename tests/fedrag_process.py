"""The `fedrag` command as a process of its own, and ways to disturb it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = [sys.executable, "-c", "from fedrag.cli.main import main; main()"]


@contextmanager
def started(*arguments: str | Path, largest_file: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run `fedrag` in a process group of its own, which is gone at the end.

    Args:
        arguments: The command line.
        largest_file: Bytes after which the writing of a file fails, as on a full disk.
    """

    def prepare() -> None:
        # A shell's background jobs ignore Ctrl-C, and what they start inherits that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=prepare,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run_to_its_end(*arguments: str | Path, largest_file: int | None = None) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error."""
    with started(*arguments, largest_file=largest_file) as process:
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err


def await_moment(
    process: subprocess.Popen[str], moment: Callable[[], bool], timeout_s: float = 240.0, every_s: float = 0.01
) -> None:
    """Return as soon as a moment has come; fail if the process ends before.

    Args:
        process: What is waited for.
        moment: Whether it has come.
        timeout_s: Fail after so long.
        every_s: Seconds between two looks; without them a look takes the core that the process needs.
    """
    end = time.monotonic() + timeout_s
    while not moment():
        assert process.poll() is None, f"it ended before the moment came: {process.communicate()}"
        assert time.monotonic() < end, "the moment never came"
        time.sleep(every_s)
