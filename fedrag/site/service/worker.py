"""The process at a site that trains: it keeps its models loaded between requests and can be ended at any moment.

It runs the installed client app. It has no network connection, but for that over the loopback device to the processes
that it trains with, and of the keys it reads the agreement key alone.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from flwr.app import Context, Message, RecordDict

from fedrag.service.children import die_with_parent
from fedrag.service.plain_log import log_plainly
from fedrag.site.refusal import DeadlinePassed
from fedrag.site.site_config import SiteConfig, choose_device
from fedrag.site.work_meter import CHECK_S

GRACE_S = 20.0  # a worker stops by itself at the first step after the deadline; this is the time for that step


class WorkerDied(Exception):
    """The worker process ended before it answered."""


class Worker:
    """Owns the worker process; starts it with the first message, and again after it died.

    Args:
        site_toml: The site's site.toml.
        node_config: The node configuration for the client app: the site's name and folders.
    """

    def __init__(self, site_toml: Path, node_config: Mapping[str, str]) -> None:
        self._site_toml = site_toml
        self._node_config = dict(node_config)
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Pipe | None = None
        self._lock = threading.RLock()  # another thread may end it while it starts

    def answer(
        self, message: Message, run: str, deadline_s: float, check: Callable[[], None] = lambda: None
    ) -> RecordDict:
        """Return the content of the reply to a message.

        Args:
            message: The message.
            run: Name of the run.
            deadline_s: Seconds until nobody waits for the reply.
            check: Called before the worker works, then every `CHECK_S`; what it raises ends the worker.

        Raises:
            WorkerDied: The worker ended before it answered.
            DeadlinePassed: It missed the deadline and was ended.
        """
        pipe = self._ready()
        end = time.monotonic() + deadline_s + GRACE_S
        self._check(end, check)
        try:
            pipe.send((message, self._node_config | {"run": run}))
            while not pipe.poll(CHECK_S):
                self._check(end, check)
            content = pipe.recv()
        except (EOFError, OSError):
            self.end()
            raise WorkerDied from None
        assert isinstance(content, RecordDict)
        return content

    def _check(self, end: float, check: Callable[[], None]) -> None:
        try:
            check()
            if time.monotonic() > end:
                raise DeadlinePassed
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """End the process."""
        with self._lock:
            if self._process is not None and self._pipe is not None:
                self._process.kill()
                self._process.join()
                self._pipe.close()
            self._process = self._pipe = None

    def _ready(self) -> Pipe:
        with self._lock:
            if self._process is None or self._pipe is None or not self._process.is_alive():
                self.end()
                context = multiprocessing.get_context("spawn")
                self._pipe, theirs = context.Pipe()
                self._process = context.Process(
                    target=_work, args=(theirs, self._site_toml, os.getpid()), name="fedrag worker", daemon=True
                )
                self._process.start()
                theirs.close()  # or recv would not notice that the process died
            return self._pipe


def _work(pipe: Pipe, site_toml: Path, parent: int) -> None:
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    config = SiteConfig.from_file(site_toml)
    choose_device(config)  # before torch looks for a GPU
    log_plainly(logging.WARNING)
    logging.getLogger("fedrag").setLevel(logging.INFO)
    from fedrag.components.crew import Crew  # imports torch, which the node must not load
    from fedrag.site.client_app import make_client_app  # the same

    app = make_client_app(policy=config.policy, crew=Crew(config.processes))
    while True:
        try:
            message, node_config = pipe.recv()
        except EOFError:
            return
        context = Context(run_id=0, node_id=0, node_config=node_config, state=RecordDict(), run_config={})
        pipe.send(app(message=message, context=context).content)
