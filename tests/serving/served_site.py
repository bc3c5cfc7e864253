"""A service of the tiny models for tests, on a free port, in a thread of this process."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tiny_federation import SHIPPED

from fedrag.data.feedback_store import FeedbackStore
from fedrag.service.web import LOOPBACK
from fedrag.serving.answer_service import answer_server
from fedrag.serving.guard import Tokens
from fedrag.serving.model_thread import ModelThread, Served
from fedrag.serving.sources import open_served

QUESTION = "What does a late book cost?"


@dataclass(frozen=True)
class Service:
    """A running service: its address, its site's data, and what it told the operator."""

    address: str
    data: Path
    said: list[str]

    @property
    def api(self) -> str:
        return f"{self.address}/v1"


def copied_site(root: Path) -> Path:
    """Copy a shipped site, so that a test may leave feedback in it."""
    return Path(shutil.copytree(SHIPPED / "north", root / "north"))


@contextmanager
def serving(
    run: Path, data: Path, tokens: Tokens | None = None, current: Callable[[], Served] | None = None
) -> Iterator[Service]:
    """Serve a run's models on a site's passages."""
    served = open_served(run, data) if current is None else None
    models = ModelThread(current or (lambda: served))
    listener = socket.create_server((LOOPBACK, 0))
    port, said = listener.getsockname()[1], list[str]()
    server = answer_server(models, FeedbackStore(data), LOOPBACK, port, tokens or Tokens(), said.append)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield Service(f"http://{LOOPBACK}:{port}", data, said)
    finally:
        server.should_exit = True
        thread.join(20)
        models.end()
        assert not thread.is_alive(), "the service does not end"
