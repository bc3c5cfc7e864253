"""The message that a site works on and the reply to it, saved across crashes of its node.

After a crash, the node continues with the saved message. A reply that was only half sent must be sent again
unchanged: the coordinator is waiting for the other half.
"""

from __future__ import annotations

import os
from pathlib import Path

from flwr.app import Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from google.protobuf.message import DecodeError

from fedrag.files import storage_errors
from fedrag.site.client_folder import INBOX, OUTBOX


class Inbox:
    """Saves at most one message and its reply.

    Args:
        folder: The site's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._message = folder / INBOX
        self._reply = folder / OUTBOX

    def put(self, message: Message) -> None:
        """Save a message in place of the previous one and its reply."""
        self._reply.unlink(missing_ok=True)
        _write(self._message, message)

    def put_reply(self, reply: Message) -> None:
        """Save the reply, before any part of it is sent."""
        _write(self._reply, reply)

    def message(self) -> Message | None:
        """Return the saved message; None if there is none or it is incomplete."""
        return _read(self._message)

    def reply(self) -> Message | None:
        """Return the saved reply; None if there is none or it is incomplete."""
        return _read(self._reply)

    def is_full(self) -> bool:
        """Return whether a message is saved."""
        return self._message.is_file()

    def clear(self) -> None:
        """Delete the message once its reply is sent; the reply stays, in case the coordinator asks for it again."""
        self._message.unlink(missing_ok=True)


def _write(path: Path, message: Message) -> None:
    with storage_errors(path):
        partial = path.with_suffix(".partial")
        partial.write_bytes(message_to_proto(message).SerializeToString())
        os.replace(partial, path)


def _read(path: Path) -> Message | None:
    try:
        raw = path.read_bytes()
        return message_from_proto(ProtoMessage.FromString(raw)) if raw else None
    except (FileNotFoundError, DecodeError):
        return None
