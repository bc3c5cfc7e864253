"""A grid whose requests are signed by the coordinator and whose replies must be signed by the site they come from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from flwr.app import Error, Message, RecordDict
from flwr.app.message.message import make_message
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedrag import __version__
from fedrag.display import Display
from fedrag.errors import SignatureError
from fedrag.federation.signing import Slip, new_request_id, verified_slip, with_signature


@dataclass(frozen=True, slots=True)
class Member:
    """A registered site that is online.

    Attributes:
        node_id: Its address.
        name: Its registered name.
        key: Its public key.
    """

    node_id: int
    name: str
    key: EllipticCurvePublicKey


class SignedGrid(Grid):
    """Wraps a grid; the rounds use it as any other.

    Args:
        grid: Carries the messages.
        run: Name of the run.
        key: The coordinator's signing key.
        members: Gives the registered sites that are online.
        display: Told of replies whose signature is not good.
    """

    poll_s = 0.3
    """How often the rounds ask for replies."""

    def __init__(
        self,
        grid: Grid,
        run: str,
        key: EllipticCurvePrivateKey,
        members: Callable[[], list[Member]],
        display: Display,
    ) -> None:
        self._grid = grid
        self._run = run
        self._key = key
        self._members = members
        self._display = display
        self._known: dict[int, Member] = {}
        self._asked: dict[str, tuple[Member, Slip]] = {}

    @property
    def registered_names(self) -> dict[int, str]:
        """The name that each address is registered under."""
        return {member.node_id: member.name for member in self._known.values()}

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._grid.run

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return all nodes of the grid beneath."""
        return self._grid.get_nodes()

    def online(self) -> dict[int, Member]:
        """Return the registered sites that are online, by address."""
        found = {member.node_id: member for member in self._members()}
        self._known |= found
        return found

    def get_node_ids(self) -> list[int]:
        """Return the addresses of the registered sites that are online."""
        return list(self.online())

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Write a message; it is signed when it is pushed."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Sign requests and send them, one at a time: one that cannot be sent costs itself alone."""
        ids: list[str] = []
        for message in messages:
            metadata = message.metadata
            member = self._known[metadata.dst_node_id]
            slip = Slip(
                "request", self._run, new_request_id(), member.name, metadata.message_type, __version__, time.time()
            )
            signed = with_signature(message.content, slip, self._key)
            out = self.create_message(
                signed, metadata.message_type, metadata.dst_node_id, metadata.group_id, metadata.ttl
            )
            (message_id,) = self._grid.push_messages([out])
            self._asked[message_id] = (member, slip)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Fetch replies; one that its site did not sign becomes an error."""
        found = []
        for reply in self._grid.pull_messages(message_ids):
            asked = self._asked.pop(reply.metadata.reply_to_message_id, None)
            if asked is not None:
                found.append(self._checked(reply, *asked))
        return found

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push messages and pull until every reply is here, or `timeout` seconds have passed."""
        waiting = set(self.push_messages(messages))
        end = float("inf") if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and time.monotonic() < end:
            found = self.pull_messages(waiting)
            waiting -= {reply.metadata.reply_to_message_id for reply in found}
            replies += found
            time.sleep(0 if found else self.poll_s)
        return replies

    def _checked(self, reply: Message, member: Member, asked: Slip) -> Message:
        if reply.has_error():
            return reply
        try:
            slip = verified_slip(reply.content, "reply", member.key)
            if (slip.run, slip.request, slip.site, slip.kind) != (asked.run, asked.request, asked.site, asked.kind):
                raise SignatureError("the reply answers another request")
        except SignatureError as error:
            self._display.say(f"{member.name}: {error}")
            return make_message(reply.metadata, error=Error(ErrorCode.MESSAGE_UNAVAILABLE, "signature_not_valid"))
        return reply
