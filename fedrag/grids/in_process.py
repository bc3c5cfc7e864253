"""A Flower grid that runs the clients in this process, one after the other."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Sequence

from flwr.app import Message
from flwr.clientapp import ClientApp

from fedrag.grids.local import LocalGrid, answer, wanted_ids

logger = logging.getLogger(__name__)


class InProcessGrid(LocalGrid):
    """Clients as function calls.

    A client runs when its reply is pulled, in the order the messages were pushed. An exception of the client
    app becomes an error reply; Ctrl-C is no client's error and passes through.
    """

    def __init__(self, client_app: ClientApp, node_configs: Sequence[dict[str, str]]) -> None:
        super().__init__(node_configs)
        self._client_app = client_app

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Run the client of the first of these messages that waits, and return its reply."""
        wanted = wanted_ids(message_ids)
        first = next((message_id for message_id in self._waiting if message_id in wanted), None)
        if first is None:
            return []
        message = copy.deepcopy(self._waiting.pop(first))
        context = self._context_for(message)
        reply, trace = answer(self._client_app, message, context)
        if trace:
            logger.error("client %s failed:\n%s", context.node_config.get("site-name"), trace)
        return [reply]
