"""The site's connection to the coordinator: Flower's Fleet API, without the bundle of code that comes with a run.

A stock SuperNode downloads the run's code and hands it on. This node never asks for it: it takes messages and
sends replies, and what answers them is installed at the site. The only file that speaks this API, which is not a
public interface of Flower: its version is pinned, and a test exchanges messages with a real SuperLink.
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
from flwr.common.serde import message_to_proto
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
    pull_and_inflate_object_from_tree,
    push_object_contents_from_iterable,
)
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedrag.errors import ServiceError
from fedrag.files import write_text

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0
AWAY = (429, 502, 503, 504)
"""What the public door answers while there is nobody behind it, or too much at once."""

T = TypeVar("T")
log = logging.getLogger("fedrag.node")


class AccessDenied(ServiceError):
    """The coordinator does not know this site's key, or finds its clock wrong."""


class UntrustedServer(ServiceError):
    """Who answers shows no certificate of the coordinator's authority."""


class RunEnded(Exception):
    """The run that a message belongs to does not go on."""


class Connection:
    """Takes messages from the coordinator and sends replies, through any trouble on the line; see `connect`."""

    def __init__(self, client: FleetHttpClient, server: str, node: Node) -> None:
        self._client = client
        self._server = server
        self.node = node

    def receive(self) -> Message | None:
        """Return the next message that waits for this site, or None."""
        found = self.call(self._client.PullMessages, PullMessagesRequest(node=self.node))
        if not found.messages_list:
            return None
        run_id, tree = found.messages_list[0].metadata.run_id, found.message_object_trees[0]
        pull = make_pull_object_fn_protobuf(lambda r: self.call(self._client.PullObject, r), self.node, run_id)
        confirm = make_confirm_message_received_fn_protobuf(
            lambda r: self.call(self._client.ConfirmMessageReceived, r), self.node, run_id
        )
        try:
            message = pull_and_inflate_object_from_tree(tree, pull, confirm, return_type=Message)
        except RunEnded:  # it ended between the head and the body
            return None
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    def send(self, reply: Message, seconds: float) -> bool:
        """Send a reply; False if the run does not go on.

        Args:
            reply: The reply.
            seconds: How long the site worked for it.
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
        except RunEnded:
            return False
        return True

    def log_in(self, public_key: bytes) -> None:
        """Tell the coordinator that this site is here.

        A node that was killed still counts as present for a minute, and cannot come a second time. So it goes
        first: then the coordinator sees that it came anew, and sends again what was lost on the way.
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
        """Tell the coordinator that this site goes."""
        with suppress(httpx.HTTPError):
            self._client.DeactivateNode(DeactivateNodeRequest(node_id=self.node.node_id))

    def beat(self) -> bool:
        """Send a sign of life and say whether it arrived."""
        request = SendNodeHeartbeatRequest(node=self.node, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        try:
            return bool(self._client.SendNodeHeartbeat(request).success)
        except httpx.HTTPError:
            return False

    def call(self, method: Callable[[Any], T], request: Any) -> T:
        """Ask the coordinator, for as long as it takes to reach it.

        Raises:
            AccessDenied: It refuses this site.
            UntrustedServer: It is not the coordinator that answers.
            RunEnded: The run does not go on.
            httpx.HTTPStatusError: It refuses this request.
        """
        wait_s, since = FIRST_WAIT_S, time.monotonic()
        while True:
            try:
                answer = method(request)
            except httpx.HTTPError as error:
                if wait_s == FIRST_WAIT_S:
                    log.warning("%s is not reached (%s); trying again", self._server, self._passing_trouble(error))
                else:
                    self._passing_trouble(error)
            else:
                if wait_s > FIRST_WAIT_S:
                    log.info("%s is reached again after %.0f s", self._server, time.monotonic() - since)
                return answer
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _passing_trouble(self, error: httpx.HTTPError) -> str:
        """Name a trouble that will pass; raise what will not."""
        if isinstance(error, httpx.HTTPStatusError):
            status = error.response.status_code
            if status == httpx.codes.UNAUTHORIZED:
                raise AccessDenied(f"{self._server} does not let this site in")
            if status == httpx.codes.FORBIDDEN:
                raise RunEnded
            if status not in AWAY:
                raise error
            return f"it answers {status}"
        if "certificate" in str(error).lower():
            raise UntrustedServer(f"{self._server}: {error}")
        return type(error).__name__


@contextmanager
def connect(
    server: str, ca: Path, key: EllipticCurvePrivateKey, address_file: Path, is_busy: Callable[[], bool]
) -> Iterator[Connection]:
    """Log in as the owner of a key and stay connected, with a heartbeat, until the block ends.

    A proxy for outgoing connections is taken from HTTPS_PROXY.

    Args:
        server: "HOST:PORT" of the coordinator.
        ca: Its certificate authority.
        key: The site's private key.
        address_file: Remembers the node id over a crash.
        is_busy: Whether there is work that the next node of this site will go on with: then it does not log out.

    Raises:
        AccessDenied: The coordinator refuses this site.
        UntrustedServer: It is not the coordinator that answers.
    """
    interceptors: list[ProtobufClientInterceptor] = [
        RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        NodeAuthHttpInterceptor(key, key.public_key()),
    ]
    with FleetHttpClient.from_server_address(server, False, ca.read_bytes(), interceptors=interceptors) as client:
        before = address_file.read_text() if address_file.is_file() else ""
        connection = Connection(client, server, Node(node_id=int(before) if before.isdecimal() else 0))
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
