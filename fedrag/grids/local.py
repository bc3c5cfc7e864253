"""What both grids share: nodes, message ids, and how a client app answers a message.

A grid copies what is pushed, as a network would: later changes by the server do not reach it. Messages with the same
content share one copy while they wait, so that ten thousand of them take no more memory than one; each client gets a
copy of its own. Flower keeps an array as immutable bytes, so the copies share them and nobody can write into another's
array.
"""

from __future__ import annotations

import copy
import time
import traceback
import uuid
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedrag.errors import MessageError
from fedrag.secure_sum.agreement import agreement_public
from fedrag.secure_sum.roster import Member

FIRST_NODE_ID = SUPERLINK_NODE_ID + 1


class LocalGrid(Grid):
    """The part of a Flower grid that does not depend on where the clients run.

    The client of `node_configs[i]` has node id `FIRST_NODE_ID + i`, always. A message whose time to live has
    passed is forgotten when the next ones are pushed, so a slow client does not hold memory forever.
    """

    one_reply_a_pull = True
    """Tells a server that it may ask for all its messages at once; see `pull_messages`."""

    def __init__(self, node_configs: Sequence[dict[str, str]]) -> None:
        self._node_configs = dict(enumerate(node_configs, start=FIRST_NODE_ID))
        self._waiting: dict[str, Message] = {}
        self.set_run(Run.create_empty(run_id=1))

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to."""
        self._run = run
        # The constructor of Message reads its sender from this process-wide identity.
        TaskIdentity.task_id = 0
        TaskIdentity.run_id = run.run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID

    @property
    def run(self) -> Run:
        """Return the run that messages belong to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message from the server to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return the node ids, in the order of the node configs."""
        return list(self._node_configs)

    def get_nodes(self) -> list[NodeInfo]:
        """Return the nodes; a node's name is the `site-name` of its config."""
        return [
            NodeInfo(node_id=node_id, name=config.get("site-name", ""), status="online")
            for node_id, config in self._node_configs.items()
        ]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Queue messages for their nodes and return their ids.

        Raises:
            MessageError: A message is for a node that is not in this grid.
        """
        self._forget_expired()
        message_ids = []
        copies: dict[int, Any] = {}  # what the messages have in common is copied once
        for message in messages:
            if message.metadata.dst_node_id not in self._node_configs:
                raise MessageError(f"a message is for node {message.metadata.dst_node_id}: no such node here")
            message_id = uuid.uuid4().hex
            message.metadata.__dict__["_message_id"] = message_id  # Flower offers no setter
            self._waiting[message_id] = copy.deepcopy(message, copies)
            message_ids.append(message_id)
        return message_ids

    def withdraw(self, message_ids: Iterable[str]) -> None:
        """Forget messages that nobody waits for any more."""
        withdrawn = set(message_ids)
        self._waiting = {key: message for key, message in self._waiting.items() if key not in withdrawn}

    @cached_property
    def members(self) -> dict[int, Member]:
        """The agreement keys of the nodes that have one; who simulates all sites signs none.

        Found once: each greeting asks for them.
        """
        keys = {node_id: config.get("agreement-key", "") for node_id, config in self._node_configs.items()}
        return {
            node_id: Member(self._node_configs[node_id]["site-name"], agreement_public(bytes.fromhex(key)))
            for node_id, key in keys.items()
            if key
        }

    @abstractmethod
    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return at most one reply to the named messages, or an empty list.

        One at a time, so that the memory of whoever folds replies together does not grow with the clients.
        """

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push messages and pull until every reply is here, or `timeout` seconds have passed."""
        awaited = set(self.push_messages(messages))
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while awaited and time.monotonic() < deadline:
            for reply in self.pull_messages(awaited):
                awaited.remove(reply.metadata.reply_to_message_id)
                replies.append(reply)
        return replies

    def _forget_expired(self) -> None:
        self._waiting = {key: message for key, message in self._waiting.items() if not is_expired(message)}

    def _context_for(self, message: Message) -> Context:
        """Return a new context: a site keeps no state from one message to the next."""
        node_id = message.metadata.dst_node_id
        return Context(
            run_id=self._run.run_id,
            node_id=node_id,
            node_config=dict(self._node_configs[node_id]),
            state=RecordDict(),
            run_config=dict(self._run.override_config),
        )


def wanted_ids(message_ids: Iterable[str]) -> AbstractSet[str]:
    """Return message ids as a set; a set stays as it is, since whoever waits for many asks as often."""
    return message_ids if isinstance(message_ids, AbstractSet) else set(message_ids)


def answer(client_app: ClientApp, message: Message, context: Context) -> tuple[Message, str]:
    """Run a client app on one message.

    Returns:
        The reply and "", or an error reply and the traceback. The reply names only the exception's class:
        its text may quote a site's data.
    """
    try:
        reply = client_app(message=message, context=context)
        if reply.metadata.reply_to_message_id != message.metadata.message_id:
            raise MessageError("the client app's reply is not to the message it was given")
    except Exception as error:
        reason = type(error).__name__
        return error_reply(message, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), traceback.format_exc()
    reply.metadata.__dict__["_message_id"] = uuid.uuid4().hex
    return reply, ""


def error_reply(message: Message, code: int, reason: str) -> Message:
    """Return the reply that says why a message got none."""
    reply = Message(Error(code=code, reason=reason), reply_to=message)
    reply.metadata.__dict__["_message_id"] = uuid.uuid4().hex
    return reply


def is_expired(message: Message) -> bool:
    """Return whether a message's time to live has passed."""
    return time.time() > message.metadata.created_at + message.metadata.ttl
