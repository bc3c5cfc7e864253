"""Processes of a Ray cluster in which clients run, kept from one grid to the next.

A run has several grids: one for the federation, one for each baseline. Their clients use the same processes, so that
Ray starts once, and base models are loaded once per process.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import socket
import sys
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import ray
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedrag.config.run_settings import SimulationConfig
from fedrag.errors import ConfigError
from fedrag.grids.local import answer

PROBE_TIMEOUT_S = 5.0
SHORT_TEMP = "/tmp"
# The system takes sockets of at most 107 bytes, 103 on macOS; Ray adds /ray, its session and a socket's name.
LONGEST_TEMP_PATH = 103 - len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")


class ClientActor:
    """A process that answers messages with one client app at a time."""

    def prepare(self, module: str) -> None:
        """Import what clients will need, before it is known what they are."""
        importlib.import_module(module)

    def start(self, client_app_factory: Callable[[], ClientApp], threads: int) -> None:
        """Build the client app in place of an earlier one; its numeric work uses this many threads."""
        import torch  # here: the driver needs no torch, and the threads are this process's own

        # Results depend on the number of threads, and Ray has set one of its own (OMP_NUM_THREADS).
        torch.set_num_threads(threads)
        self._client_app = client_app_factory()

    def handle(self, message: Message, context: Context) -> tuple[Message, str]:
        """Return the reply to a message, and the traceback where the client app failed, else ""."""
        return answer(self._client_app, message, context)


class RayPool:
    """Client processes, each a Ray actor; a context manager that ends them.

    Args:
        clients: Number of clients: there are never more processes.
        actors: Number of processes; 0: as many as the CPUs and GPUs allow.
        cpus_per_actor: CPUs that one holds.
        gpus_per_actor: Share of a GPU that one holds; 0: as large as possible, where there are GPUs.
        address: A running Ray cluster; None: a new local one. One that this process is connected to is used anyway.
        prepare: A module that they import at once, while this process does something else.

    Attributes:
        size: Number of processes.
        cpus_per_actor: CPUs that one holds.

    Raises:
        ConfigError: The cluster does not answer, or is too small.
    """

    def __init__(
        self,
        clients: int,
        *,
        actors: int = 0,
        cpus_per_actor: int = 1,
        gpus_per_actor: float = 0.0,
        address: str | None = None,
        prepare: str | None = None,
    ) -> None:
        self._idle: list[Any] = []
        self.cpus_per_actor = cpus_per_actor
        self._prepare = prepare
        self._connected = _connect(address)
        try:
            share = gpus_per_actor or _gpu_share(actors)
            self._holds_gpus = share > 0
            self.size = _count_actors(actors, clients, cpus_per_actor, share)
            self._actor_class = ray.remote(
                num_cpus=cpus_per_actor,
                num_gpus=share,
                runtime_env=_same_environment(),
                scheduling_strategy="SPREAD",  # over the nodes of a cluster; Ray would fill one first
                max_restarts=0,
            )(ClientActor)
            self._idle = [self._start() for _ in range(self.size)]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def take(self) -> Any:
        """Return an idle actor, or start another; a caller whose actor died takes one more."""
        return self._idle.pop() if self._idle else self._start()

    def give_back(self, actor: Any) -> None:
        """Keep an idle actor for the next caller; end it where its models fill a GPU.

        Between two grids models are measured in this process, which may need that memory.
        """
        if self._holds_gpus:
            ray.kill(actor)
        else:
            self._idle.append(actor)

    def close(self) -> None:
        """End the idle actors, and Ray or the connection to it if this pool made it."""
        for actor in self._idle:
            ray.kill(actor)
        self._idle = []
        if self._connected:
            ray.shutdown()  # a cluster that existed before stays
            self._connected = False

    def _start(self) -> Any:
        actor = self._actor_class.remote()
        if self._prepare:
            actor.prepare.remote(self._prepare)
        return actor


def pool_for(settings: SimulationConfig, clients: int, address: str | None) -> RayPool:
    """Start the processes that a scenario asks for; they import what its clients need."""
    return RayPool(
        clients,
        actors=settings.actors,
        cpus_per_actor=settings.cpus_per_actor,
        gpus_per_actor=settings.gpus_per_actor,
        address=address,
        prepare="fedrag.site.client_app",
    )


def require_cluster(address: str) -> None:
    """Check that something answers at the address of a Ray cluster.

    Ray itself waits for minutes and then ends the process.

    Raises:
        ConfigError: The address has no port, or nothing answers there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        raise ConfigError(f'"{address}" is no address of a Ray cluster: expected HOST:PORT, such as 10.0.0.5:6379')
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"no Ray cluster answers at {address} ({error}); start one with: ray start --head") from None


def _connect(address: str | None) -> bool:
    """Connect to Ray unless this process already is; return whether it was not."""
    if ray.is_initialized():
        connected = ray.get_runtime_context().gcs_address
        if address not in (None, connected):
            raise ConfigError(f"this process is connected to the Ray cluster at {connected} already, not to {address}")
        return False
    if address is not None:
        require_cluster(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports usage to its makers by default
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # this grid reports each loss, once
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about GPUs of actors that hold none: we rely on none
        try:
            ray.init(
                address=address or "local",
                include_dashboard=None if address else False,
                _temp_dir=None if address else short_temp_folder(),
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        except (ConnectionError, ValueError, RuntimeError, SystemExit) as error:  # Ray exits where no Ray answers
            if address is None:
                raise
            raise ConfigError(f"no Ray cluster that this machine belongs to answers at {address} ({error})") from error
    return True


def short_temp_folder() -> str | None:
    """Return a folder for Ray's sockets where that of the environment has too long a path; None: it has not."""
    asked = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or ""
    if sys.platform == "win32" or len(os.fsencode(asked)) <= LONGEST_TEMP_PATH:
        return None
    if not os.access(SHORT_TEMP, os.W_OK):
        raise ConfigError(
            f"{asked}: is too long for the sockets of Ray, and {SHORT_TEMP} cannot be written; set RAY_TMPDIR to a "
            f"folder whose path has at most {LONGEST_TEMP_PATH} bytes"
        )
    return f"{SHORT_TEMP}/ray"


def _same_environment() -> dict[str, Any]:
    """Return the runtime environment in which an actor finds every module and model that this process finds."""
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    # The actors of a cluster that existed before have its environment, not this process's.
    inherited = {name: os.environ[name] for name in ("FEDRAG_HOME",) if name in os.environ}
    return {"env_vars": {"PYTHONPATH": paths, **inherited}}


def _gpu_share(actors: int) -> float:
    """Return the share of a GPU that each of some actors gets; 0 actors: as many as there are GPUs."""
    gpus = int(sum(node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]))
    return 1.0 / max(1, math.ceil(actors / gpus)) if gpus else 0.0


def _count_actors(asked: int, clients: int, cpus_per_actor: int, gpus_per_actor: float) -> int:
    """Return the number of actors to start; Ray would wait forever for one that does not fit."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(_room(node, cpus_per_actor, gpus_per_actor) for node in nodes)
    wanted = min(asked or max(room, 1), clients)
    if wanted > room:
        cpus, gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
        raise ConfigError(
            f"simulation.actors: {wanted} with {cpus_per_actor} CPUs and {gpus_per_actor:g} GPUs each "
            f"do not fit into {cpus:g} CPUs and {gpus:g} GPUs{f' of {len(nodes)} nodes' if len(nodes) > 1 else ''}"
        )
    return wanted


def _room(node: dict[str, float], cpus_per_actor: int, gpus_per_actor: float) -> int:
    """Return how many actors one node holds: an actor's CPUs, and its share of a GPU, lie on one node."""
    room = int(node.get("CPU", 0) // cpus_per_actor)
    if gpus_per_actor > 0:
        room = min(room, int(node.get("GPU", 0)) * int(1 / gpus_per_actor + 1e-9))
    return room
