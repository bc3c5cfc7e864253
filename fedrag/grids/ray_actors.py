"""A Flower grid that runs several clients at a time, in Ray actors.

Messages wait here and go to the next idle actor, so any actor serves any client. The client app of an actor
lives as long as the actor: what it keeps in its module (the base models) is loaded once per actor.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import ray
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from fedrag.errors import ConfigError
from fedrag.grids.local import LocalGrid, answer, error_reply, is_expired

PULL_WAIT_S = 0.1
PROBE_TIMEOUT_S = 5.0
START_TIMEOUT_S = 300
LOST = "client process lost"

logger = logging.getLogger(__name__)


class ClientActor:
    """A process that answers messages with one client app."""

    def start(self, client_app_factory: Callable[[], ClientApp], threads: int) -> None:
        """Build the client app; its numeric work uses this many threads."""
        import torch  # here: the driver needs no torch, and the threads are this process's own

        # Results depend on the number of threads, and Ray has set one of its own (OMP_NUM_THREADS).
        torch.set_num_threads(threads)
        self._client_app = client_app_factory()

    def handle(self, message: Message, context: Context) -> tuple[Message, str]:
        """Return the reply to a message, and the traceback where the client app failed, else ""."""
        return answer(self._client_app, message, context)


@dataclass(frozen=True, slots=True)
class Flight:
    """A message that an actor works on."""

    message: Message
    actor: Any
    reply: Any
    """Reference to the reply, which stays in Ray's object store until it is pulled."""


class RayGrid(LocalGrid):
    """Clients in Ray actors; a context manager that ends them.

    It is ready with the first actor; the others join as they get ready. An actor that dies is replaced and
    its message goes once more to another; if that dies too, the reply is an error. An actor that still works
    on a message past its time to live is replaced at the next push. What clients print goes to the log files
    of Ray's session.

    Args:
        client_app_factory: Builds the client app, once in each actor. It is pickled.
        node_configs: The node config of each client.
        actors: Number of actors; 0: as many as the CPUs and GPUs allow. Never more than clients.
        cpus_per_actor: CPUs that one actor holds.
        gpus_per_actor: Share of a GPU that one actor holds; with 0 it sees none.
        threads: torch threads of an actor; 0: cpus_per_actor.
        address: A running Ray cluster; None: a new local one. One that this process is connected to is used anyway.

    Raises:
        ConfigError: The cluster does not answer, or is too small.
    """

    def __init__(
        self,
        client_app_factory: Callable[[], ClientApp],
        node_configs: Sequence[dict[str, str]],
        *,
        actors: int = 0,
        cpus_per_actor: int = 1,
        gpus_per_actor: float = 0.0,
        threads: int = 0,
        address: str | None = None,
    ) -> None:
        super().__init__(node_configs)
        self._start_arguments = (client_app_factory, threads or cpus_per_actor)
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._flights: dict[Any, Flight] = {}
        self._landed: dict[str, Flight] = {}
        self._retried: set[str] = set()
        self._connected = _connect(address)
        try:
            count = _count_actors(actors, len(node_configs), cpus_per_actor, gpus_per_actor)
            self._actor_class = ray.remote(
                num_cpus=cpus_per_actor,
                num_gpus=gpus_per_actor,
                runtime_env=_same_environment(),
                scheduling_strategy="SPREAD",  # over the nodes of a cluster; Ray would fill one first
                max_restarts=0,
            )(ClientActor)
            for _ in range(count):
                self._add_actor()
            _await_start(list(self._starting))
            self._idle, self._starting = list(self._starting.values()), {}
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the actors, and Ray or the connection to it if this grid made it. Replies not yet pulled are gone."""
        for actor in [*self._idle, *self._starting.values(), *(flight.actor for flight in self._flights.values())]:
            ray.kill(actor)
        self._idle, self._starting, self._flights, self._landed = [], {}, {}, {}
        if self._connected:
            ray.shutdown()  # a cluster that was there before stays
            self._connected = False

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Queue messages for their nodes and return their ids; idle actors begin at once."""
        message_ids = super().push_messages(messages)
        self._collect(wait_s=0.0)
        self._dispatch()
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the earliest finished reply to these messages.

        If there is none yet, wait a little for one, so that a loop over this method needs no sleep.
        """
        wanted = set(message_ids)
        is_here = not wanted.isdisjoint(self._landed)
        self._collect(wait_s=0.0 if is_here else PULL_WAIT_S)
        # Replies that nobody fetches would fill the memory: a slow server gets no more of them for now.
        if not is_here or len(self._landed) <= len(self._idle) + len(self._flights):
            self._dispatch()
        first = next((message_id for message_id in self._landed if message_id in wanted), None)
        return [] if first is None else self._fetch(first)

    def _fetch(self, message_id: str) -> list[Message]:
        """Return the reply to a message; where it was lost with its node, ask again."""
        flight = self._landed.pop(message_id)
        try:
            return [ray.get(flight.reply)]
        except RayError:
            self._ask_again(flight)
            return []

    def _add_actor(self) -> None:
        """Start an actor; it is idle once it is ready."""
        actor = self._actor_class.remote()
        self._starting[actor.start.remote(*self._start_arguments)] = actor

    def _dispatch(self) -> None:
        """Send waiting messages to idle actors."""
        while self._waiting and self._idle:
            message = self._waiting.pop(next(iter(self._waiting)))
            actor = self._idle.pop()
            context = self._context_for(message)
            # Two results: the reply stays where it is until it is pulled; the small outcome says how it went.
            reply, outcome = actor.handle.options(num_returns=2).remote(message, context)
            self._flights[outcome] = Flight(message, actor, reply)

    def _collect(self, wait_s: float) -> None:
        """Land every message that is done and take in every actor that is ready, after waiting for the first."""
        awaited = [*self._flights, *self._starting]
        if not awaited:
            return
        ray.wait(awaited, num_returns=1, timeout=wait_s)
        done, _ = ray.wait(awaited, num_returns=len(awaited), timeout=0)
        for reference in done:
            if reference in self._flights:
                self._land(reference, self._flights.pop(reference))
            else:
                self._take_in(reference, self._starting.pop(reference))

    def _take_in(self, start: Any, actor: Any) -> None:
        """Note that an actor is ready, or start another if it died before it was."""
        try:
            ray.get(start)
        except RayTaskError as error:  # it would fail again; the first actor did not
            logger.error("a client process could not start:\n%s", error)
        except RayError:
            self._add_actor()
        else:
            self._idle.append(actor)

    def _land(self, outcome: Any, flight: Flight) -> None:
        """Take note of a finished message and free its actor, or replace the actor if it died."""
        try:
            trace = ray.get(outcome)
        except RayTaskError as error:  # the reply could not be pickled
            trace = str(error)
            flight = _failed(flight, ErrorCode.UNKNOWN, type(error.cause).__name__)
        except RayError:
            self._add_actor()
            self._ask_again(flight)
            return
        if trace:
            logger.error("client %s failed:\n%s", self._name_of(flight), trace)
        self._idle.append(flight.actor)
        self._landed[flight.message.metadata.message_id] = flight

    def _ask_again(self, flight: Flight) -> None:
        """Retry a message whose actor or reply is gone, once."""
        message_id = flight.message.metadata.message_id
        if message_id in self._retried:
            logger.error("client %s: %s twice", self._name_of(flight), LOST)
            self._landed[message_id] = _failed(flight, ErrorCode.CLIENT_APP_CRASHED, LOST)
        else:
            logger.warning("client %s: %s; it is asked once more", self._name_of(flight), LOST)
            self._retried.add(message_id)
            self._waiting = {message_id: flight.message, **self._waiting}

    def _forget_expired(self) -> None:
        super()._forget_expired()
        self._landed = {key: flight for key, flight in self._landed.items() if not is_expired(flight.message)}
        for outcome, flight in list(self._flights.items()):
            if is_expired(flight.message):
                ray.kill(flight.actor)
                del self._flights[outcome]
                self._add_actor()

    def _name_of(self, flight: Flight) -> str:
        node_id = flight.message.metadata.dst_node_id
        return self._node_configs[node_id].get("site-name", f"node {node_id}")


def _failed(flight: Flight, code: int, reason: str) -> Flight:
    """Return the flight with an error for its reply."""
    return replace(flight, reply=ray.put(error_reply(flight.message, code, reason)))


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
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        except (ConnectionError, ValueError, RuntimeError, SystemExit) as error:  # Ray exits where no Ray answers
            if address is None:
                raise
            raise ConfigError(f"no Ray cluster that this machine belongs to answers at {address} ({error})") from error
    return True


def _same_environment() -> dict[str, Any]:
    """Return the runtime environment in which an actor finds every module and model that this process finds."""
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    # The actors of a cluster that was there before have its environment, not this process's.
    home = {name: os.environ[name] for name in ("FEDRAG_HOME",) if name in os.environ}
    return {"env_vars": {"PYTHONPATH": paths, **home}}


def _count_actors(asked: int, clients: int, cpus_per_actor: int, gpus_per_actor: float) -> int:
    """Return the number of actors to start; Ray would wait for ever for one that does not fit."""
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


def _await_start(starts: list[Any]) -> None:
    """Wait for the actors; an exception of the client app's factory comes up as it was raised."""
    try:
        ray.get(starts, timeout=START_TIMEOUT_S)
    except RayTaskError as error:
        raise error.cause from error
    except GetTimeoutError:
        raise ConfigError(f"the Ray actors did not start in {START_TIMEOUT_S} s: is the cluster busy?") from None
