"""A message on its way in: fetched part by part from its head down, within a limit, and put together at the end.

Flower sends a message as objects that name one another by hash, and tells beside it which there are. Who means harm can
tell anything, or register an object under a foreign one. So what hangs below a part is read from the part itself, each
part must have the hash that it is named by, and stand where a message has such a part.
"""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import Callable

import numpy as np
from flwr.app import Array, Message
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_head_values_from_object_content,
    get_object_id,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedrag.errors import MessageError

UNREADABLE = "cannot_be_read"
TOO_LARGE = "is_too_large"
ANSWERS_ANOTHER = "answers_another_request"
"""What may be wrong with a message, each as one word."""

SPOILT = b"larger than it may be"
"""What stands in place of the head of a message that was larger than it may be when it was sent."""
MOST_PARTS = 10_000
_BELOW = {
    "": {"Message"},
    "Message": {"RecordDict"},
    "RecordDict": {"ArrayRecord", "ConfigRecord", "MetricRecord"},
    "ArrayRecord": {"Array"},
    "Array": {"ArrayChunk"},
}


class ArrivingMessage:
    """A message of which some parts may have come; those that tell how large others are come first.

    Args:
        message_id: The hash of its head.
        limit: The most bytes that it may have once it is put together.
    """

    def __init__(self, message_id: str, limit: int) -> None:
        self.message_id = message_id
        self.left = limit
        """How many bytes may still come."""
        self._parts: dict[str, bytes] = {}
        self._uses: Counter[str] = Counter()
        self._due = deque([(message_id, "")])

    def fetch(self, pull: Callable[[str], bytes]) -> None:
        """Fetch what is missing; whatever `pull` raises passes through, and the next call goes on from there.

        Raises:
            MessageError: The message is too large, or a part is not what it should be.
        """
        while self._due:
            object_id, above = self._due[0]
            if object_id not in self._parts:
                self._take(object_id, above, pull(object_id))
            self._due.popleft()

    def message(self) -> Message:
        """Put the parts together; they are gone afterwards.

        Raises:
            MessageError: They are no message.
        """
        try:
            message = inflate_object_from_contents(self.message_id, self._parts)
        except Exception as error:  # foreign bytes are parsed here, which fails in many ways
            raise MessageError(UNREADABLE) from error
        if not isinstance(message, Message):
            raise MessageError(UNREADABLE)
        message.metadata.__dict__["_message_id"] = self.message_id
        return message

    def _take(self, object_id: str, above: str, content: bytes) -> None:
        if get_object_id(content) != object_id:
            raise MessageError(TOO_LARGE if content == SPOILT else UNREADABLE)
        try:
            kind, below, _ = get_object_head_values_from_object_content(content)
            announced = self._announced(content, below) if kind == "Array" else 0
        except Exception as error:
            raise MessageError(UNREADABLE) from error
        if kind not in _BELOW.get(above, ()):
            raise MessageError(UNREADABLE)
        self.left -= len(content) * max(1, self._uses[object_id])
        if announced > self.left or self.left < 0 or len(self._due) + len(below) > MOST_PARTS:
            raise MessageError(TOO_LARGE)
        self._parts[object_id] = content
        self._due += [(child, kind) for child in below]

    def _announced(self, content: bytes, chunks: list[str]) -> int:
        """Return the bytes that an array says it has, and note how often each chunk stands in it."""
        told = json.loads(get_object_body(content, Array))
        self._uses.update(chunks[index] for index in told["arraychunk_ids"])
        return int(math.prod(told["shape"]) * np.dtype(told["dtype"]).itemsize)
