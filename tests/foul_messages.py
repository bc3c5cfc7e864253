"""Messages that no honest site sends, as real objects with right hashes: Flower's own client takes and sends them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, Metadata, RecordDict
from flwr.app.message.message import make_message


class GarbageRecord(ConfigRecord):
    """A record whose body is no record."""

    def deflate(self) -> bytes:
        """Return a right head and a wrong body."""
        return b"ConfigRecord  8\0\xff\xff\xff\xffgarb"


class ClaimedRecord(ConfigRecord):
    """A record that claims that another hangs below it, in the tree that is told, and not in its content."""

    @property
    def children(self) -> dict[str, Any]:
        """Return the other."""
        below = ConfigRecord({"bogus": 1})
        return {below.object_id: below}

    def deflate(self) -> bytes:
        """Return the honest content."""
        return ConfigRecord(dict(self)).deflate()


ClaimedRecord.__name__ = "ConfigRecord"  # as the signature covers it


class _AnsweringAnother(Message):
    def deflate(self) -> bytes:
        metadata = self.metadata.__dict__
        before, metadata["_reply_to_message_id"] = metadata["_reply_to_message_id"], "0" * 64
        try:
            return super().deflate()
        finally:
            metadata["_reply_to_message_id"] = before


_AnsweringAnother.__qualname__ = "Message"  # its kind, as Flower writes it


def garbage(asked: Message) -> Message:
    """Return a reply with a record that cannot be parsed."""
    return Message(RecordDict({"update": GarbageRecord()}), reply_to=asked)


def answering_another(reply: Message) -> Message:
    """Return the reply with a head that says it answers this request, and an inside that says another."""
    reply.__class__ = _AnsweringAnother
    return reply


def large(asked: Message, megabytes: int) -> Message:
    """Return a reply of so many megabytes."""
    noise = np.random.default_rng(0).integers(0, 255, megabytes * 2**20, dtype=np.uint8)
    return Message(RecordDict({"update": ArrayRecord({"generator": Array(noise)})}), reply_to=asked)


def next_request(asked: Message) -> ClaimedRecord:
    """Return the record that the coordinator will send in the next round, with something below it."""
    record = ConfigRecord(dict(asked.content["request"]))
    for name in ("round", "past-rounds.generator"):
        record[name] = int(str(record[name])) + 1
    return ClaimedRecord(dict(record))


def in_the_servers_name(run_id: int, node_id: int, content: RecordDict) -> Message:
    """Return a message that claims to be the server's, to any node."""
    metadata = Metadata(
        run_id=run_id,
        message_id="",
        src_node_id=1,
        dst_node_id=node_id,
        reply_to_message_id="",
        group_id="1",
        created_at=time.time(),
        ttl=60.0,
        message_type="train.round",
    )
    return make_message(metadata, content)
