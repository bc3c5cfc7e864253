"""The site's connection to the coordinator: Flower's Fleet API, without the bundle of code that comes with a run.

A stock SuperNode downloads the run's code and hands it on. This node never asks for it: it takes messages and
sends replies, and what answers them is installed at the site. The only file here that knows Flower's internals;
its version is pinned, and a test exchanges messages with a real SuperLink.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import (
    pull_and_inflate_object_from_tree,
    push_object_contents_from_iterable,
)
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.fleet_http_connection import http_request_response


class Connection:
    """Takes messages from the coordinator and sends replies; see `connect`."""

    def __init__(
        self,
        receive: Callable[[], tuple[Message, ObjectTree] | None],
        send: Callable[[Message, ObjectTree, float], tuple[set[str], str]],
        pull_object: Callable[..., bytes],
        push_object: Callable[..., None],
        confirm: Callable[..., None],
    ) -> None:
        self._receive = receive
        self._send = send
        self._pull_object = pull_object
        self._push_object = push_object
        self._confirm = confirm

    def receive(self) -> Message | None:
        """Return the next message that waits for this site, or None."""
        try:
            found = self._receive()
            if found is None:
                return None
            head, tree = found
            run_id = head.metadata.run_id
            message = pull_and_inflate_object_from_tree(
                tree,
                lambda object_id: self._pull_object(run_id, object_id),
                lambda object_id: self._confirm(run_id, object_id),
                return_type=Message,
            )
            message.metadata.__dict__["_message_id"] = tree.object_id
            return message
        except RunNotRunningException:
            return None  # the run ended between the head and the body

    def send(self, reply: Message, seconds: float) -> bool:
        """Send a reply; False if the run does not go on.

        Args:
            reply: The reply.
            seconds: How long the site worked for it.
        """
        reply.metadata.__dict__["_message_id"] = reply.object_id
        run_id = reply.metadata.run_id
        try:
            with no_object_id_recompute():
                wanted, session = self._send(remove_content_from_message(reply), get_object_tree(reply), seconds)
                contents = (
                    (object_id, item.deflate())
                    for object_id, item in get_all_nested_objects(reply).items()
                    if object_id in wanted
                )
                push_object_contents_from_iterable(
                    contents, lambda object_id, content: self._push_object(run_id, session, object_id, content)
                )
        except RunNotRunningException:
            return False
        return True


@contextmanager
def connect(server: str, ca: Path, key: EllipticCurvePrivateKey) -> Iterator[Connection]:
    """Log in as the owner of a key and stay connected, with a heartbeat, until the block ends.

    A proxy for outgoing connections is taken from HTTPS_PROXY.

    Args:
        server: "HOST:PORT" of the coordinator.
        ca: Its certificate authority.
        key: The site's private key.
    """
    keys = (key, key.public_key())
    with http_request_response(server, False, ca.read_bytes(), keys) as flower:
        _, receive, send, _, _, pull_object, push_object, confirm = flower
        yield Connection(receive, send, pull_object, push_object, confirm)
