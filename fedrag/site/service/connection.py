"""The site's connection to the coordinator: Flower's Fleet API, without the code bundle of a run.

A stock SuperNode downloads the run's code and executes it. This node never asks for code: it receives messages and
sends replies, and the software that answers them is installed at the site. No other file uses this API. It is not a
public interface of Flower, so the version of Flower is pinned, and a test exchanges messages with a real SuperLink.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    ObjectUnavailableError,
    push_object_contents_from_iterable,
)
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from google.protobuf.message import DecodeError

from fedrag.errors import MessageError, ServiceError
from fedrag.federation.arriving import TOO_LARGE, UNREADABLE, ArrivingMessage
from fedrag.federation.reply_limit import without_limit
from fedrag.files import write_text

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0
PARTS_WAIT_S = 240.0  # Flower itself forgets a message whose sender has been silent for three minutes
INCOMPLETE = "never_came_whole"
_ANSWER_BYTES = 2**20  # beside a part of a message: what else the coordinator says
TEMPORARY = (429, 502, 503, 504)
"""Statuses of the reverse proxy while the SuperLink behind it is down or overloaded."""

T = TypeVar("T")
log = logging.getLogger("fedrag.node")


class AccessDenied(ServiceError):
    """The coordinator does not know this site's key, or this machine's clock is wrong."""


class UntrustedServer(ServiceError):
    """The server has no certificate from the coordinator's authority."""


class RunEnded(Exception):
    """The run that a message belongs to has ended."""


class TooLarge(MessageError):
    """A message is larger than this site takes.

    Args:
        head: The message without what it carries.
    """

    def __init__(self, head: Message) -> None:
        super().__init__(TOO_LARGE)
        self.head = head


class Connection:
    """Receives messages from the coordinator and sends replies, retrying through outages; see `connect`."""

    def __init__(self, client: FleetHttpClient, server: str, node: Node, largest: int) -> None:
        self._client = client
        self._server = server
        self._largest = largest
        self._answer_limit = _ANSWER_BYTES
        self.node = node
        client._client.event_hooks["response"].append(self._look_at_size)  # Flower has no seam for it

    def receive(self) -> Message | None:
        """Return the next message for this site, or None.

        Raises:
            TooLarge: A message says that it is larger than this site takes; no array of it was fetched.
            MessageError: A message cannot be read.
        """
        try:
            found = self.call(self._client.PullMessages, PullMessagesRequest(node=self.node))
            heads = [_without_limit(message_from_proto(head)) for head in found.messages_list]
            return self._arrived(heads[0]) if heads else None
        except RunEnded:  # between the message's head and its body
            return None
        except DecodeError as error:
            raise MessageError(UNREADABLE) from error

    def _arrived(self, head: Message) -> Message:
        """Fetch what belongs to the head of a message, and confirm it, whatever it is: it never comes again."""
        arriving = ArrivingMessage(head.metadata.message_id, self._largest)
        try:
            self._fetch(arriving, head.metadata.run_id)
            message = arriving.message()
        except MessageError as error:
            if str(error) == TOO_LARGE:
                raise TooLarge(head) from error
            raise
        finally:
            self._answer_limit = _ANSWER_BYTES
            confirm = make_confirm_message_received_fn_protobuf(
                lambda r: self.call(self._client.ConfirmMessageReceived, r), self.node, head.metadata.run_id
            )
            with suppress(RunEnded):
                confirm(arriving.message_id)
        if not message.has_content():
            raise MessageError(UNREADABLE)
        return _without_limit(message)

    def _fetch(self, arriving: ArrivingMessage, run_id: int) -> None:
        """Fetch all parts of a message, of which the coordinator may still be sending some."""
        ask = make_pull_object_fn_protobuf(lambda r: self.call(self._client.PullObject, r), self.node, run_id)

        def pull(object_id: str) -> bytes:
            self._answer_limit = arriving.left + _ANSWER_BYTES
            return ask(object_id)

        end = time.monotonic() + PARTS_WAIT_S
        while True:
            try:
                arriving.fetch(pull)
            except ObjectUnavailableError:
                if time.monotonic() > end:
                    raise MessageError(INCOMPLETE) from None
                time.sleep(FIRST_WAIT_S)
            except ObjectPullError:
                raise MessageError(INCOMPLETE) from None
            else:
                return

    def _look_at_size(self, response: httpx.Response) -> None:
        """Let go of an answer that says that it is larger than it may be, before a byte of it is read."""
        told = response.headers.get("content-length", "")
        if not told.isdecimal() or int(told) > self._answer_limit:
            response.close()
            raise MessageError(TOO_LARGE)

    def send(self, reply: Message, seconds: float) -> bool:
        """Send a reply; return False if its run has ended.

        Args:
            reply: The reply.
            seconds: How long the site worked on it.
        """
        reply.metadata.__dict__["_message_id"] = reply.object_id
        try:
            with no_object_id_recompute():
                request = PushMessagesRequest(
                    node=self.node,
                    messages_list=[message_to_proto(remove_content_from_message(reply))],
                    message_object_trees=[get_object_tree(reply)],
                    clientapp_runtime_list=[seconds],
                )
                answer = self.call(self._client.PushMessages, request)
                wanted = set(answer.objects_to_push)
                objects = get_all_nested_objects(reply).items()
                contents = ((name, item.deflate()) for name, item in objects if name in wanted)
                push = make_push_object_fn_protobuf(
                    lambda r: self.call(self._client.PushObject, r),
                    self.node,
                    reply.metadata.run_id,
                    answer.session_id,
                )
                push_object_contents_from_iterable(contents, push)
        except (RunEnded, ObjectPushError):  # or nobody waits for it any more
            return False
        return True

    def log_in(self, public_key: bytes) -> None:
        """Register this node as online.

        The coordinator counts a killed node as online for another minute, and refuses to register it twice. So it
        logs out first: the coordinator then notices the restart, and sends again what was lost.
        """
        if self.node.node_id:
            self.log_out()
        request = ActivateNodeRequest(public_key=public_key, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        try:
            self.node = Node(node_id=self.call(self._client.ActivateNode, request).node_id)
        except httpx.HTTPStatusError as error:
            if not (self.node.node_id and self.beat()):
                raise AccessDenied(f"{self._server} does not let this site in ({error.response.status_code})") from None

    def log_out(self) -> None:
        """Register this node as offline."""
        with suppress(httpx.HTTPError):
            self._client.DeactivateNode(DeactivateNodeRequest(node_id=self.node.node_id))

    def beat(self) -> bool:
        """Send a heartbeat; return whether it arrived."""
        request = SendNodeHeartbeatRequest(node=self.node, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        try:
            return bool(self._client.SendNodeHeartbeat(request).success)
        except httpx.HTTPError:
            return False

    def call(self, method: Callable[[Any], T], request: Any) -> T:
        """Call a method of the coordinator, and retry until it answers.

        Raises:
            AccessDenied: It refuses this site.
            UntrustedServer: Another server answers.
            RunEnded: The run has ended.
            httpx.HTTPStatusError: It refuses this request.
        """
        wait_s, since = FIRST_WAIT_S, time.monotonic()
        while True:
            try:
                answer = method(request)
            except httpx.HTTPError as error:
                if wait_s == FIRST_WAIT_S:
                    log.warning("%s is not reached (%s); trying again", self._server, self._temporary_fault(error))
                else:
                    self._temporary_fault(error)
            else:
                if wait_s > FIRST_WAIT_S:
                    log.info("%s is reached again after %.0f s", self._server, time.monotonic() - since)
                return answer
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _temporary_fault(self, error: httpx.HTTPError) -> str:
        """Name a fault that a retry can cure; raise any other."""
        if isinstance(error, httpx.HTTPStatusError):
            status = error.response.status_code
            if status == httpx.codes.UNAUTHORIZED:
                raise AccessDenied(f"{self._server} does not let this site in")
            if status == httpx.codes.FORBIDDEN:
                raise RunEnded
            if status not in TEMPORARY:
                raise error
            return f"it answers {status}"
        if "certificate" in str(error).lower():
            raise UntrustedServer(f"{self._server}: {error}")
        return type(error).__name__


def _without_limit(message: Message) -> Message:
    """Take from a message's group what is meant for the coordinator's own machine."""
    message.metadata.__dict__["_group_id"] = without_limit(message.metadata.group_id)
    return message


@contextmanager
def connect(
    server: str,
    ca: Path,
    key: EllipticCurvePrivateKey,
    address_file: Path,
    is_busy: Callable[[], bool],
    largest: int = 2**40,
) -> Iterator[Connection]:
    """Log in as the owner of a key and stay connected, with a heartbeat, until the block ends.

    The proxy for outgoing connections, if any, comes from HTTPS_PROXY.

    Args:
        server: "HOST:PORT" of the coordinator.
        ca: Its certificate authority.
        key: The site's private key.
        address_file: Keeps the node id across a crash.
        is_busy: Returns whether work is left for the site's next node to continue; then this one does not log out.
        largest: The most bytes of a message.

    Raises:
        AccessDenied: The coordinator refuses this site.
        UntrustedServer: Another server answers.
    """
    interceptors: list[ProtobufClientInterceptor] = [
        RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        NodeAuthHttpInterceptor(key, key.public_key()),
    ]
    with FleetHttpClient.from_server_address(server, False, ca.read_bytes(), interceptors=interceptors) as client:
        before = address_file.read_text(encoding="ascii") if address_file.is_file() else ""
        connection = Connection(client, server, Node(node_id=int(before) if before.isdecimal() else 0), largest)
        connection.log_in(public_key_to_bytes(key.public_key()))
        write_text(address_file, str(connection.node.node_id))
        heartbeat = HeartbeatSender(connection.beat)
        heartbeat.start()
        try:
            yield connection
        finally:
            heartbeat.stop()
            if not is_busy():
                connection.log_out()
