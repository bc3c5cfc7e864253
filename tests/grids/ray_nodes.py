"""Nodes of a Ray cluster that tests start and end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

START_S = 90.0
_NOTHING: Mapping[str, str] = MappingProxyType({})


class Node:
    """A Ray node on this machine: `ray start` in a process group of its own, ended by that group alone.

    Args:
        arguments: What `ray start` gets.
        within: A command that runs it, such as one that puts it into a network of its own.
        environment: Variables that it gets besides.
    """

    def __init__(self, *arguments: str, within: Sequence[str] = (), environment: Mapping[str, str] = _NOTHING) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: sockets lie in it
        settings = ["--block", "--num-cpus=1", "--object-store-memory=100000000", f"--temp-dir={self._folder}"]
        self._process = subprocess.Popen(
            [*within, sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, *settings],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **environment},
        )

    def kill(self) -> None:
        """End all processes of the node at once, as when a machine loses its power."""
        listed = subprocess.run(["ps", "-s", str(self._process.pid), "-o", "pid="], capture_output=True, text=True)
        for pid in map(int, listed.stdout.split()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
