"""Ports for servers of tests; two test processes that run at the same time never get the same one."""

from __future__ import annotations

import os
import random
import socket

_FIRST, _PER_WORKER = 20_000, 2_000  # above those of Ray's workers, below those that the system gives to anyone
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Return ports that are free now and that this process was not given before."""
    return [free_port() for _ in range(count)]


def free_port() -> int:
    """Return a port that is free now and that this process was not given before."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = range(_FIRST + worker * _PER_WORKER, _FIRST + (worker + 1) * _PER_WORKER)
    for port in random.SystemRandom().sample(own, len(own)):
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise AssertionError("no port is free")


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
