"""A Flower grid that runs several clients at a time, in Ray actors.

Messages wait here and go to the next idle actor, so any actor serves any client. What a client app keeps in its module
(the base models) is loaded once per actor.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import ray
from flwr.app import Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from ray.exceptions import RayError, RayTaskError

from fedrag.errors import ConfigError
from fedrag.grids.local import LocalGrid, error_reply, is_expired, wanted_ids
from fedrag.grids.ray_pool import RayPool

PULL_WAIT_S = 0.1
START_TIMEOUT_S = 300
LOST = "client process lost"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Flight:
    """A message that an actor works on."""

    message: Message
    actor: Any
    reply: Any
    """Reference to the reply, which stays in Ray's object store until it is pulled."""


class RayGrid(LocalGrid):
    """Clients in Ray actors; a context manager that releases them.

    It is ready with the first actor; the others join as they become ready. An actor that dies is replaced and
    its message goes to another, once; if that dies too, the reply is an error. An actor that still works
    on a message past its time to live is replaced at the next push. What clients print goes to the log files
    of Ray's session.

    Args:
        client_app_factory: Builds the client app, once in each actor. It is pickled.
        node_configs: The node config of each client.
        pool: Lends its actors, and gets back those that are idle at the end.
        threads: torch threads of an actor; 0: as many as it holds CPUs.

    Raises:
        ConfigError: The actors do not start.
    """

    def __init__(
        self,
        client_app_factory: Callable[[], ClientApp],
        node_configs: Sequence[dict[str, str]],
        pool: RayPool,
        *,
        threads: int = 0,
    ) -> None:
        super().__init__(node_configs)
        self._start_arguments = (client_app_factory, threads or pool.cpus_per_actor)
        self._pool = pool
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._flights: dict[Any, Flight] = {}
        self._landed: dict[str, Flight] = {}
        self._retried: set[str] = set()
        try:
            for _ in range(min(pool.size, len(node_configs))):
                self._add_actor()
            self._await_start()
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
        """End the actors that work and give the others back. Replies not yet pulled are gone."""
        for actor in [*self._starting.values(), *(flight.actor for flight in self._flights.values())]:
            ray.kill(actor)
        for actor in self._idle:
            self._pool.give_back(actor)
        self._idle, self._starting, self._flights, self._landed = [], {}, {}, {}

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
        wanted = wanted_ids(message_ids)
        is_here = any(message_id in wanted for message_id in self._landed)
        self._collect(wait_s=0.0 if is_here else PULL_WAIT_S)
        # Replies that nobody fetches would fill the memory: a slow server gets no more of them for now.
        if not is_here or len(self._landed) <= len(self._idle) + len(self._flights):
            self._dispatch()
        first = next((message_id for message_id in self._landed if message_id in wanted), None)
        return [] if first is None else self._fetch(first)

    def withdraw(self, message_ids: Iterable[str]) -> None:
        """Forget messages that nobody waits for any more; an actor that works on one is replaced."""
        withdrawn = set(message_ids)
        super().withdraw(withdrawn)
        self._landed = {key: flight for key, flight in self._landed.items() if key not in withdrawn}
        self._end_flights(lambda message: message.metadata.message_id in withdrawn)

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
        actor = self._pool.take()
        self._starting[actor.start.remote(*self._start_arguments)] = actor

    def _await_start(self) -> None:
        """Wait for the actors; an exception of the client app's factory comes up as it was raised."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._starting:
            done, _ = ray.wait(list(self._starting), timeout=max(deadline - time.monotonic(), 0.0))
            if not done:
                raise ConfigError(f"the Ray actors did not start in {START_TIMEOUT_S} s: is the cluster busy?")
            actor = self._starting.pop(done[0])
            try:
                ray.get(done[0])
            except RayTaskError as error:
                ray.kill(actor)
                raise error.cause from error
            except RayError:  # it died, perhaps while it was idle in the pool
                self._add_actor()
            else:
                self._idle.append(actor)

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
        """Wait for a message or an actor, then record every message that is done and every actor that is ready."""
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
        """Record that an actor is ready, or start another if it died first."""
        try:
            ray.get(start)
        except RayTaskError as error:  # it would fail again; the first actor did not
            logger.error("a client process could not start:\n%s", error)
        except RayError:
            self._add_actor()
        else:
            self._idle.append(actor)

    def _land(self, outcome: Any, flight: Flight) -> None:
        """Record a finished message and free its actor, or replace the actor if it died."""
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
        self._end_flights(is_expired)

    def _end_flights(self, is_over: Callable[[Message], bool]) -> None:
        """End the work on messages, and replace the actors that did it."""
        for outcome, flight in list(self._flights.items()):
            if is_over(flight.message):
                ray.kill(flight.actor)
                del self._flights[outcome]
                self._add_actor()

    def _name_of(self, flight: Flight) -> str:
        node_id = flight.message.metadata.dst_node_id
        return self._node_configs[node_id].get("site-name", f"node {node_id}")


def _failed(flight: Flight, code: int, reason: str) -> Flight:
    """Return the flight with an error for its reply."""
    return replace(flight, reply=ray.put(error_reply(flight.message, code, reason)))
