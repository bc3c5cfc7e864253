"""The message a site works on, and the reply to it, kept over a crash of its node.

A node that dies over a request goes on with it at its next start. And a reply of which half was sent must be sent
again as it was: the coordinator's side waits for the other half.
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
    """Holds one message at most, and its reply.

    Args:
        folder: The site's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._message = folder / INBOX
        self._reply = folder / OUTBOX

    def put(self, message: Message) -> None:
        """Keep a message instead of the one before and its reply."""
        self._reply.unlink(missing_ok=True)
        _write(self._message, message)

    def put_reply(self, reply: Message) -> None:
        """Keep the reply, before any of it is sent."""
        _write(self._reply, reply)

    def message(self) -> Message | None:
        """Return the message that is kept, if there is a whole one."""
        return _read(self._message)

    def reply(self) -> Message | None:
        """Return the reply that is kept, if there is a whole one."""
        return _read(self._reply)

    def is_full(self) -> bool:
        """Say whether a message is kept."""
        return self._message.is_file()

    def clear(self) -> None:
        """Note that the reply was sent; it is kept until the next message, in case it is asked for again."""
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
