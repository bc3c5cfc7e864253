"""What a registered site may ask of the SuperLink beyond being registered: to answer what it was asked, and no more.

Flower takes any message from any registered node: also one to another node, in the server's name, and of any size. The
gate stands behind Flower's check of who asks, in the SuperLink's own process, and lets pass a reply to an open request
to that very site, up to the size that the request allows. Of a reply that is larger, the coordinator finds the head
spoilt, and so learns at once that nothing good will come.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PushObjectRequest
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.state.schema.objectstore_models import StoredObject
from flwr.supercore.utils import int64_to_uint64
from flwr.superlink.dependencies.linkstate import get_linkstate
from sqlalchemy import update
from starlette.concurrency import run_in_threadpool
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fedrag.federation.arriving import MOST_PARTS, SPOILT
from fedrag.federation.reply_limit import limit_of

HEAD_BYTES = 2**14
MOST_REPLIES = 10_000  # that are on their way at the same time; the oldest are forgotten


@dataclass(slots=True)
class _Incoming:
    """A reply whose parts are coming.

    Attributes:
        node_id: Who sends it.
        head: The hash of its head.
        left: Bytes that may still come.
    """

    node_id: int
    head: str
    left: int


class FleetGate(BaseHTTPMiddleware):
    """Refuses with 403 what a site has no business to send: that is what Flower answers when a run has ended."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        super().__init__(app)
        self._incoming: OrderedDict[str, _Incoming] = OrderedDict()
        self._busy: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Let a request pass, or refuse it."""
        asked = getattr(request.state, "protobuf_request", None)
        if not request.url.path.startswith("/v1/fleet/"):
            return await call_next(request)
        if isinstance(asked, PushMessagesRequest):
            return await self._push_message(request, asked, call_next)
        if isinstance(asked, PushObjectRequest):
            async with self._busy[asked.node.node_id]:  # or two parts at once would both find room
                return await self._push_object(request, asked, call_next)
        if isinstance(asked, ConfirmMessageReceivedRequest):
            its_own = await run_in_threadpool(_asked, _state(request), asked.message_object_id, asked.node.node_id)
            return await call_next(request) if its_own else _refused("no message for this node")
        return await call_next(request)

    async def _push_message(
        self, request: Request, asked: PushMessagesRequest, call_next: RequestResponseEndpoint
    ) -> Response:
        if len(asked.messages_list) != 1 or len(asked.message_object_trees) != 1:
            return _refused("not one message")
        if asked.messages_list[0].ByteSize() > HEAD_BYTES:
            return _refused("a head that carries what belongs below it")
        del asked.clientapp_runtime_list[:]  # a number of the site's own, which Flower would add up
        head, tree = asked.messages_list[0].metadata, asked.message_object_trees[0]
        group = await run_in_threadpool(_asked, _state(request), head.reply_to_message_id, asked.node.node_id)
        if group is None or head.src_node_id != asked.node.node_id or tree.object_id != head.message_id:
            return _refused("no reply to an open request of this node")
        too_many = sum(1 for _ in iterate_object_tree(tree)) > MOST_PARTS
        if too_many:
            del tree.children[:]
        response = await call_next(request)
        answer = getattr(request.state, "protobuf_response", None)
        if answer is not None and answer.session_id:
            self._incoming[answer.session_id] = _Incoming(asked.node.node_id, tree.object_id, limit_of(group))
            while len(self._incoming) > MOST_REPLIES:
                self._incoming.popitem(last=False)
        if too_many:
            await run_in_threadpool(_spoil, _state(request), tree.object_id)
        return response

    async def _push_object(
        self, request: Request, asked: PushObjectRequest, call_next: RequestResponseEndpoint
    ) -> Response:
        incoming = self._incoming.get(asked.session_id)
        if incoming is None or incoming.node_id != asked.node.node_id:
            return _refused("no reply of this node is on its way")
        if len(asked.object_content) > incoming.left:
            incoming.left = 0
            await run_in_threadpool(_spoil, _state(request), incoming.head)
            return _refused("the reply is larger than its request allows")
        incoming.left -= len(asked.object_content)
        return await call_next(request)


def _state(request: Request) -> SqlLinkState:
    state = get_linkstate(request)
    assert isinstance(state, SqlLinkState)
    return state


def _asked(state: SqlLinkState, message_id: str, node_id: int) -> str | None:
    """Return the group of a message that waits for a node's reply; None where there is no such."""
    found = state.get_valid_message_ins(message_id) if message_id else None
    if found is None or int64_to_uint64(found["dst_node_id"]) != node_id:
        return None
    return str(found["group_id"])


def _spoil(state: SqlLinkState, head: str) -> None:
    """Put in place of a head what does not have its hash, so that whoever waits for the reply waits no longer."""
    with state.session() as session:
        session.execute(
            update(StoredObject)
            .where(StoredObject.object_id == head, StoredObject.is_available == 0)
            .values(content=SPOILT, is_available=1)
        )


def _refused(why: str) -> Response:
    return JSONResponse({"detail": why}, status_code=403)
