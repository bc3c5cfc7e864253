"""The grid of a run in progress: replies come from the SuperLink as they are complete, and none brings it down."""

from __future__ import annotations

import time
from collections.abc import Iterable

from flwr.app import Error, Message, Metadata
from flwr.app.message.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.message_pb2 import Metadata as ProtoMetadata
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectUnavailableError
from flwr.superlink.grid import HttpGrid

from fedrag.errors import MessageError
from fedrag.federation.arriving import ANSWERS_ANOTHER, UNREADABLE, ArrivingMessage
from fedrag.federation.reply_limit import limit_of

BAD_REPLY = ErrorCode.MOD_FAILED_PRECONDITION
"""Code of the error that stands for a reply which no honest site sends; Flower itself never uses it here."""


class PatientGrid(HttpGrid):
    """A grid that does not wait for a reply that has arrived only in part, and that no reply brings down.

    Flower's own grid blocks until the site has sent the rest. A site that died, or means harm, never does, and all
    other replies would wait with it. What cannot be read becomes an error with the code `BAD_REPLY`.
    """

    def __init__(self, address: str, ca: bytes, token: str) -> None:
        super().__init__(address, root_certificates=ca, token=token)
        self._limits: dict[str, int] = {}
        self._arriving: dict[str, ArrivingMessage] = {}
        self._from_superlink: set[str] = set()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages; the group of each tells how large its reply may be."""
        pushed = list(messages)
        ids = list(super().push_messages(pushed))
        self._limits |= {i: limit_of(m.metadata.group_id) for i, m in zip(ids, pushed, strict=True)}
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that have arrived completely."""
        wanted = list(message_ids)
        if unknown := [message_id for message_id in wanted if message_id not in self._arriving]:
            found = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=unknown))
            for head in found.messages_list:
                self._begin(head.metadata)
        replies = [self._whole(message_id) for message_id in wanted if message_id in self._arriving]
        return [reply for reply in replies if reply is not None]

    def _begin(self, head: ProtoMetadata) -> None:
        """Note a reply whose head has arrived; the SuperLink has checked who sent it, and what it answers."""
        asked = head.reply_to_message_id
        if asked in self._limits:
            self._arriving[asked] = ArrivingMessage(head.message_id, self._limits[asked])
            if head.src_node_id == SUPERLINK_NODE_ID:
                self._from_superlink.add(asked)

    def _whole(self, message_id: str) -> Message | None:
        """Fetch what has arrived of a reply; return it once it is complete."""
        arriving = self._arriving[message_id]
        run_id = self.run.run_id
        pull = make_pull_object_fn_protobuf(self._runtime_client.PullObject, self.node, run_id)
        try:
            arriving.fetch(pull)
            reply = self._checked(arriving.message(), message_id)
        except ObjectUnavailableError:
            return None
        except ObjectPullError:
            reply = _error(run_id, message_id, ErrorCode.MESSAGE_UNAVAILABLE, "reply_is_incomplete")
        except MessageError as error:
            reply = _error(run_id, message_id, BAD_REPLY, f"reply_{error}")
        del self._arriving[message_id]
        self._from_superlink.discard(message_id)
        self._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self.node, run_id=run_id, message_object_id=arriving.message_id)
        )
        return reply

    def _checked(self, reply: Message, message_id: str) -> Message:
        """Return a reply that is what its head says.

        Raises:
            MessageError: It answers another message, or a site sent an error, which ours never do.
        """
        if reply.metadata.reply_to_message_id != message_id:
            raise MessageError(ANSWERS_ANOTHER)
        if reply.has_error() and message_id not in self._from_superlink:
            raise MessageError(UNREADABLE)
        return reply


def _error(run_id: int, message_id: str, code: int, reason: str) -> Message:
    """Return the error that stands for a reply to a message."""
    metadata = Metadata(
        run_id=run_id,
        message_id="",
        src_node_id=SUPERLINK_NODE_ID,
        dst_node_id=SUPERLINK_NODE_ID,
        reply_to_message_id=message_id,
        group_id="",
        created_at=time.time(),
        ttl=0,
        message_type=SYSTEM_MESSAGE_TYPE,
    )
    return make_message(metadata, error=Error(code, reason))
