"""A site's node: `python -m fedrag.site.service.node DIR`. It alone holds the key and talks to the coordinator.

It receives messages and sends replies. While the worker answers one message, the node polls for the next: a newer
request means that nobody waits for the older one any more.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeGuard

from flwr.app import Message

from fedrag.errors import MessageError, StorageError
from fedrag.federation.arriving import UNREADABLE
from fedrag.federation.signing import request_id
from fedrag.security.keys import load_private_key
from fedrag.service.plain_log import log_plainly
from fedrag.service.stopping import Stop, stop_on_signals
from fedrag.site.policy import MEGABYTE
from fedrag.site.service.connection import AccessDenied, Connection, TooLarge, UntrustedServer, connect
from fedrag.site.service.inbox import Inbox
from fedrag.site.service.request_handler import RequestHandler, Superseded
from fedrag.site.site_config import SITE_FILE, SiteConfig
from fedrag.site.site_keys import next_key, take_up_next_key

POLL_S = 1.0
ACCESS_DENIED = 77
"""Exit code of a node that the coordinator refuses."""
UNTRUSTED_SERVER = 78
"""Exit code of a node that finds another server in the coordinator's place."""

log = logging.getLogger("fedrag.node")


class Job:
    """The work on one message, in a thread of its own.

    Args:
        handler: Answers the message.
        message: The message.
        again: Whether the site accepted it before and died.
    """

    def __init__(self, handler: RequestHandler, message: Message, again: bool) -> None:
        self._handler = handler
        self._first = message
        self._latest = message
        self._again = again
        self._cancelled = threading.Event()
        self._reply: Message | None = None
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def is_for(self, message: Message) -> bool:
        """Return whether a message is the request that this job answers."""
        return request_id(self._first) == request_id(message)

    def answer_instead(self, message: Message) -> None:
        """Answer this message instead: the same request, which the coordinator sent again after a restart."""
        self._latest = message

    def is_done(self, wait_s: float) -> bool:
        """Wait at most this long for the work, and return whether it is done."""
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """End the work without a reply."""
        self._cancelled.set()
        while self._thread.is_alive():  # repeated, since the worker may only just be starting
            self._handler.interrupt()
            self._thread.join(0.1)
        self._reply = None

    def reply(self) -> Message | None:
        """Return the reply to the latest copy of the request; None if nothing may leave."""
        if self._reply is None or self._latest is self._first:
            return self._reply
        return Message(self._reply.content, reply_to=self._latest)

    def _work(self) -> None:
        started = time.monotonic()
        try:
            with _storage_errors_logged():
                self._reply = self._handler.answer(self._first, self._again, self._cancelled)
        except Superseded:
            log.info("the work was cancelled")
        self.seconds = time.monotonic() - started


class SiteNode:
    """Answers the coordinator's requests, one at a time.

    Args:
        connection: To the coordinator.
        handler: Answers messages.
        inbox: Saves the current message and its reply across crashes.
    """

    def __init__(self, connection: Connection, handler: RequestHandler, inbox: Inbox) -> None:
        self._connection = connection
        self._handler = handler
        self._inbox = inbox
        self._job: Job | None = None
        self._unreadable = 0

    def serve(self) -> None:
        """Answer messages until the process is told to end; the site's next node continues the work."""
        try:
            with _storage_errors_logged():
                self._continue_after_crash()
            while True:
                self._poll()
        finally:
            if self._job:
                self._job.cancel()

    def _poll(self) -> None:
        message = self._received()
        if message is not None:
            with _storage_errors_logged():
                self._accept(message)
        if self._job and self._job.is_done(POLL_S):
            job, self._job = self._job, None
            with _storage_errors_logged():
                self._send_reply(job)
        elif message is None and self._job is None:
            time.sleep(POLL_S)

    def _received(self) -> Message | None:
        """Return the next message, if it can be read: one that cannot costs a line in the log."""
        try:
            return self._connection.receive()
        except TooLarge as error:
            self._leave(error)
            with _storage_errors_logged():
                self._send(self._handler.refuse(error.head, "policy-message-size", "max_message_mb"), 0.0)
        except MessageError as error:
            self._leave(error)
        return None

    def _leave(self, error: MessageError) -> None:
        """Write down that a message was left aside: what is wrong with it is told in words of our own."""
        self._unreadable += 1
        log.error("a message %s; %d so far", str(error).replace("_", " "), self._unreadable)

    def _continue_after_crash(self) -> None:
        """Send the reply that the last node was sending when it died, unchanged; or begin its work again."""
        message, reply = self._inbox.message(), self._inbox.reply()
        if message and reply:
            self._send_again(reply, reply, message)
            self._inbox.clear()
        elif message:
            self._job = Job(self._handler, message, again=True)

    def _accept(self, message: Message) -> None:
        """Begin the work on a message, unless it is refused, in progress, or done."""
        try:
            slip, done = self._handler.slip_of(message), self._inbox.reply()
        except Exception:  # records of foreign bytes fail in many ways
            self._leave(MessageError(UNREADABLE))
            return
        if slip is None:
            self._refuse(message)  # a forged message cancels no work
        elif self._job and self._job.is_for(message):
            self._inbox.put(message)
            self._job.answer_instead(message)
        elif self._job is None and _is_same(done, message):
            log.info("the coordinator asks for a reply again")
            self._send_again(done, Message(done.content, reply_to=message), message)
        elif self._job is None and _is_same(self._inbox.message(), message):  # its reply could not be logged
            self._job = Job(self._handler, message, again=True)
        elif self._handler.is_replay(slip):  # an older request, for which nobody waits
            self._refuse(message)
        else:
            if self._job:
                self._job.cancel()
                self._job = None
            self._inbox.put(message)
            self._job = Job(self._handler, message, again=False)

    def _refuse(self, message: Message) -> None:
        self._send(self._handler.answer(message), 0.0)

    def _send_reply(self, job: Job) -> None:
        if reply := job.reply():
            self._inbox.put_reply(reply)
            self._send(reply, job.seconds)
            self._inbox.clear()

    def _send_again(self, saved: Message, reply: Message, asked: Message) -> None:
        self._handler.log_again(saved, asked)
        self._send(reply, 0.0)

    def _send(self, reply: Message, seconds: float) -> None:
        if not self._connection.send(reply, seconds):
            log.info("the run had ended before a reply was sent")


def _is_same(saved: Message | None, message: Message) -> TypeGuard[Message]:
    return saved is not None and request_id(saved) == request_id(message)


@contextmanager
def _storage_errors_logged() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        log.error("nothing was sent, because the egress log could not be written: %s", error)


def main(folder: Path) -> None:
    """Serve a site until told to end."""
    log_plainly()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = SiteConfig.from_file(folder / SITE_FILE)
    if config.proxy:
        os.environ["HTTPS_PROXY"] = config.proxy
    stop_on_signals()
    try:
        with ExitStack() as until_the_end:
            inbox = Inbox(folder)
            connection = _let_in(until_the_end, folder, config, inbox)
            log.info("connected to %s as %s", config.server, config.name)
            handler = RequestHandler(folder, config)
            until_the_end.callback(handler.interrupt)
            SiteNode(connection, handler, inbox).serve()
    except Stop:
        log.info("the node ends")
    except (AccessDenied, UntrustedServer) as error:
        log.error("%s", error)
        raise SystemExit(ACCESS_DENIED if isinstance(error, AccessDenied) else UNTRUSTED_SERVER) from None


def _let_in(until_the_end: ExitStack, folder: Path, config: SiteConfig, inbox: Inbox) -> Connection:
    """Connect with the site's key; with its next one, where the coordinator has accepted that instead."""

    def connected(key: Path) -> Connection:
        server, ca, address = config.server, Path(config.ca), folder / "address"
        largest = int(config.policy.max_message_mb * MEGABYTE)
        return until_the_end.enter_context(connect(server, ca, load_private_key(key), address, inbox.is_full, largest))

    try:
        return connected(Path(config.private_key))
    except AccessDenied:
        following = next_key(config)
        if not following.is_file():
            raise
        connection = connected(following)
        take_up_next_key(config)
        log.info("the next key of this site is in use; the one of before is gone")
        return connection


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
