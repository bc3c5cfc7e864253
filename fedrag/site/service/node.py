"""A site's node: `python -m fedrag.site.service.node DIR`. It alone speaks with the coordinator and holds the key.

It takes messages and sends replies. While the worker works on one, it goes on looking for the next: a newer request
means that nobody waits for the older any more.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard

from flwr.app import Message

from fedrag.errors import StorageError
from fedrag.federation.signing import request_id
from fedrag.security.keys import load_private_key
from fedrag.service.children import Stop, stop_on_signals
from fedrag.site.service.connection import AccessDenied, Connection, UntrustedServer, connect
from fedrag.site.service.inbox import Inbox
from fedrag.site.service.request_handler import RequestHandler, Superseded
from fedrag.site.site_config import SITE_FILE, SiteConfig

POLL_S = 1.0
ACCESS_DENIED = 77
"""Exit code of a node that the coordinator does not let in."""
UNTRUSTED_SERVER = 78
"""Exit code of a node that is answered by another than the coordinator."""

log = logging.getLogger("fedrag.node")


class Job:
    """The work for one message, in a thread of its own.

    Args:
        handler: Answers it.
        message: The message.
        again: Whether the site took it up before and died.
    """

    def __init__(self, handler: RequestHandler, message: Message, again: bool) -> None:
        self._handler = handler
        self._first = message
        self._latest = message
        self._again = again
        self._given_up = threading.Event()
        self._reply: Message | None = None
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def is_for(self, message: Message) -> bool:
        """Say whether a message is the request that is being worked on."""
        return request_id(self._first) == request_id(message)

    def asked_again(self, message: Message) -> None:
        """Answer this message instead: the same request, sent again, because this node came anew."""
        self._latest = message

    def is_done(self, wait_s: float) -> bool:
        """Say whether the work is done, after waiting a while for it."""
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def give_up(self) -> None:
        """End the work; there will be no reply."""
        self._given_up.set()
        while self._thread.is_alive():  # the worker may start this very moment
            self._handler.interrupt()
            self._thread.join(0.1)
        self._reply = None

    def reply(self) -> Message | None:
        """Return the reply to what was asked last, or None if nothing may leave."""
        if self._reply is None or self._latest is self._first:
            return self._reply
        return Message(self._reply.content, reply_to=self._latest)

    def _work(self) -> None:
        started = time.monotonic()
        try:
            with _storage_errors_logged():
                self._reply = self._handler.answer(self._first, self._again, self._given_up)
        except Superseded:
            log.info("work was given up")
        self.seconds = time.monotonic() - started


class SiteNode:
    """Answers what the coordinator asks, one request at a time.

    Args:
        connection: To the coordinator.
        handler: Answers messages.
        inbox: Keeps the message that is being worked on, and its reply, over a crash.
    """

    def __init__(self, connection: Connection, handler: RequestHandler, inbox: Inbox) -> None:
        self._connection = connection
        self._handler = handler
        self._inbox = inbox
        self._job: Job | None = None

    def serve(self) -> None:
        """Answer messages until the process is told to end; the next node goes on with the work."""
        try:
            with _storage_errors_logged():
                self._go_on_after_crash()
            while True:
                self._look()
        finally:
            if self._job:
                self._job.give_up()

    def _look(self) -> None:
        message = self._connection.receive()
        if message is not None:
            with _storage_errors_logged():
                self._take_up(message)
        if self._job and self._job.is_done(POLL_S):
            job, self._job = self._job, None
            with _storage_errors_logged():
                self._hand_out(job)
        elif message is None and self._job is None:
            time.sleep(POLL_S)

    def _go_on_after_crash(self) -> None:
        """Send the reply that a node was sending when it died, as it was; or begin its work anew."""
        message, reply = self._inbox.message(), self._inbox.reply()
        if message and reply:
            self._send_again(reply, reply)
            self._inbox.clear()
        elif message:
            self._job = Job(self._handler, message, again=True)

    def _take_up(self, message: Message) -> None:
        """Begin the work for a message, unless it is refused, going on already, or done."""
        slip, done = self._handler.slip_of(message), self._inbox.reply()
        if slip is None:
            self._refuse(message)  # and no reason to give up any work
        elif self._job and self._job.is_for(message):
            self._inbox.put(message)
            self._job.asked_again(message)
        elif self._job is None and _is_same(done, message):
            log.info("a reply is asked for again")
            self._send_again(done, Message(done.content, reply_to=message))
        elif self._job is None and _is_same(self._inbox.message(), message):  # its reply could not be written down
            self._job = Job(self._handler, message, again=True)
        elif self._handler.is_replay(slip):  # an older one, for which nobody waits
            self._refuse(message)
        else:
            if self._job:
                self._job.give_up()
                self._job = None
            self._inbox.put(message)
            self._job = Job(self._handler, message, again=False)

    def _refuse(self, message: Message) -> None:
        self._send(self._handler.answer(message), 0.0)

    def _hand_out(self, job: Job) -> None:
        if reply := job.reply():
            self._inbox.put_reply(reply)
            self._send(reply, job.seconds)
            self._inbox.clear()

    def _send_again(self, kept: Message, reply: Message) -> None:
        self._handler.write_again(kept)
        self._send(reply, 0.0)

    def _send(self, reply: Message, seconds: float) -> None:
        if not self._connection.send(reply, seconds):
            log.info("a reply came too late: the run has ended")


def _is_same(kept: Message | None, message: Message) -> TypeGuard[Message]:
    return kept is not None and request_id(kept) == request_id(message)


@contextmanager
def _storage_errors_logged() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        log.error("nothing was sent: what leaves is written down first, and that failed: %s", error)


def main(folder: Path) -> None:
    """Serve a site until told to end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = SiteConfig.from_file(folder / SITE_FILE)
    if config.proxy:
        os.environ["HTTPS_PROXY"] = config.proxy
    handler = RequestHandler(folder, config)
    stop_on_signals()
    inbox = Inbox(folder)
    key = load_private_key(Path(config.private_key))
    try:
        with connect(config.server, Path(config.ca), key, folder / "address", inbox.is_full) as connection:
            log.info("connected to %s as %s", config.server, config.name)
            SiteNode(connection, handler, inbox).serve()
    except Stop:
        log.info("the node ends")
    except (AccessDenied, UntrustedServer) as error:
        log.error("%s", error)
        raise SystemExit(ACCESS_DENIED if isinstance(error, AccessDenied) else UNTRUSTED_SERVER) from None
    finally:
        handler.interrupt()


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
