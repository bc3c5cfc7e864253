"""A Flower grid that runs several clients at a time, in Ray actors.

Messages wait here and go to the next idle actor, so any actor serves any client. The client app of an actor
lives as long as the actor: what it keeps in its module (the base models) is loaded once per actor.
"""

from __future__ import annotations

import logging
import os
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
    is_retry: bool


class RayGrid(LocalGrid):
    """Clients in Ray actors; a context manager that ends them.

    An actor that dies is replaced and its message goes once more to the new one; if that dies too, the reply
    is an error. An actor that still works on a message past its time to live is replaced at the next push.
    What clients print goes to the log files of Ray's session.

    Args:
        client_app_factory: Builds the client app, once in each actor. It is pickled.
        node_configs: The node config of each client.
        actors: Number of actors; 0: as many as the CPUs and GPUs allow. Never more than clients.
        cpus_per_actor: CPUs that one actor holds.
        gpus_per_actor: Share of a GPU that one actor holds; with 0 it sees none.
        threads: torch threads of an actor; 0: cpus_per_actor.
        address: A running Ray cluster; None: the one this process is connected to, else a new local one.

    Raises:
        ConfigError: The cluster is too small.
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
        self._flights: dict[Any, Flight] = {}
        self._landed: dict[str, Flight] = {}
        self._started_ray = _connect(address)
        try:
            count = _count_actors(actors, len(node_configs), cpus_per_actor, gpus_per_actor)
            self._actor_class = ray.remote(
                num_cpus=cpus_per_actor, num_gpus=gpus_per_actor, runtime_env=_same_imports(), max_restarts=0
            )(ClientActor)
            _await_start([self._add_actor() for _ in range(count)])
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
        """End the actors, and Ray too if this grid started it. Replies not yet pulled are gone."""
        for actor in [*self._idle, *(flight.actor for flight in self._flights.values())]:
            ray.kill(actor)
        self._idle, self._flights, self._landed = [], {}, {}
        if self._started_ray:
            ray.shutdown()
            self._started_ray = False

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Queue messages for their nodes and return their ids; idle actors begin at once."""
        message_ids = super().push_messages(messages)
        self._dispatch()
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the earliest finished reply to these messages.

        If there is none yet, wait a little for one, so that a loop over this method needs no sleep.
        """
        wanted = set(message_ids)
        self._collect(wait_s=PULL_WAIT_S if wanted.isdisjoint(self._landed) else 0.0)
        first = next((message_id for message_id in self._landed if message_id in wanted), None)
        return [] if first is None else [ray.get(self._landed.pop(first).reply)]

    def _add_actor(self) -> Any:
        """Start an idle actor and return the reference that tells when it is ready."""
        actor = self._actor_class.remote()
        self._idle.append(actor)
        return actor.start.remote(*self._start_arguments)

    def _dispatch(self) -> None:
        """Send waiting messages to idle actors."""
        while self._waiting and self._idle:
            message = self._waiting.pop(next(iter(self._waiting)))
            self._launch(message, is_retry=False)

    def _launch(self, message: Message, *, is_retry: bool) -> None:
        actor = self._idle.pop()
        context = self._context_for(message)
        # Two results: the reply stays where it is until it is pulled; the small outcome says how it went.
        reply, outcome = actor.handle.options(num_returns=2).remote(message, context)
        self._flights[outcome] = Flight(message, actor, reply, is_retry)

    def _collect(self, wait_s: float) -> None:
        """Land every message that is done, after waiting for the first, and send out the next ones."""
        if not self._flights:
            return
        outcomes = list(self._flights)
        ray.wait(outcomes, num_returns=1, timeout=wait_s)
        done, _ = ray.wait(outcomes, num_returns=len(outcomes), timeout=0)
        for outcome in done:
            self._land(outcome, self._flights.pop(outcome))
        self._dispatch()

    def _land(self, outcome: Any, flight: Flight) -> None:
        """Take note of a finished message and free its actor, or replace the actor if it died."""
        try:
            trace = ray.get(outcome)
        except RayTaskError as error:  # the reply could not be pickled
            trace = str(error)
            flight = _failed(flight, ErrorCode.UNKNOWN, type(error.cause).__name__)
        except RayError:
            self._replace_actor(flight)
            return
        if trace:
            logger.error("client %s failed:\n%s", self._name_of(flight), trace)
        self._idle.append(flight.actor)
        self._landed[flight.message.metadata.message_id] = flight

    def _replace_actor(self, flight: Flight) -> None:
        """Put a new actor in the place of a dead one and retry the message, once."""
        self._add_actor()
        if flight.is_retry:
            logger.error("client %s: %s twice", self._name_of(flight), LOST)
            lost = _failed(flight, ErrorCode.CLIENT_APP_CRASHED, LOST)
            self._landed[flight.message.metadata.message_id] = lost
        else:
            logger.warning("client %s: %s; it is asked once more", self._name_of(flight), LOST)
            self._launch(flight.message, is_retry=True)

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


def _connect(address: str | None) -> bool:
    """Connect to Ray unless this process already is; return whether a local Ray was started."""
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports usage to its makers by default
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # this grid reports each loss, once
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about GPUs of actors that hold none: we rely on none
        ray.init(
            address=address or "local",
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    return address is None


def _same_imports() -> dict[str, Any]:
    """Return the runtime environment in which an actor finds every module that this process finds."""
    return {"env_vars": {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}}


def _count_actors(asked: int, clients: int, cpus_per_actor: int, gpus_per_actor: float) -> int:
    """Return the number of actors to start; Ray would wait for ever for one that does not fit."""
    resources = ray.cluster_resources()
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    room = int(cpus // cpus_per_actor)
    if gpus_per_actor > 0:
        room = min(room, int(gpus) * int(1 / gpus_per_actor + 1e-9))  # an actor's share lies on one GPU
    wanted = min(asked or max(room, 1), clients)
    if wanted > room:
        raise ConfigError(
            f"simulation.actors: {wanted} with {cpus_per_actor} CPUs and {gpus_per_actor:g} GPUs each "
            f"do not fit into {cpus:g} CPUs and {gpus:g} GPUs"
        )
    return wanted


def _await_start(starts: list[Any]) -> None:
    """Wait for the actors; an exception of the client app's factory comes up as it was raised."""
    try:
        ray.get(starts, timeout=START_TIMEOUT_S)
    except RayTaskError as error:
        raise error.cause from error
    except GetTimeoutError:
        raise ConfigError(f"the Ray actors did not start in {START_TIMEOUT_S} s: is the cluster busy?") from None
