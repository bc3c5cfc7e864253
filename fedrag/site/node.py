"""A site's node: `python -m fedrag.site.node DIR`. It alone speaks with the coordinator and holds the site's key.

It takes messages and sends replies. While the worker works on one, it goes on looking for the next: a newer request
means that nobody waits for the older any more.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path

from flwr.app import Message

from fedrag.errors import StorageError
from fedrag.federation.signing import request_id
from fedrag.security.keys import load_private_key
from fedrag.site.connection import Connection, NotLetIn, NotTrusted, connect
from fedrag.site.desk import Desk, Superseded
from fedrag.site.inbox import Inbox
from fedrag.site.site_config import SITE_FILE, SiteConfig
from fedrag.supervision import Stop, stop_on_signals

POLL_S = 1.0
NOT_LET_IN = 77
"""Exit code of a node that the coordinator does not let in."""
NOT_TRUSTED = 78
"""Exit code of a node that is answered by another than the coordinator."""

log = logging.getLogger("fedrag.node")


class Job:
    """The work for one message, in a thread of its own.

    Args:
        desk: Answers it.
        message: The message.
        again: Whether the site took it up before and died.
    """

    def __init__(self, desk: Desk, message: Message, again: bool) -> None:
        self._desk = desk
        self.first = message
        self._again = again
        self._started = time.monotonic()
        self.latest = message
        self.reply: Message | None = None
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def request(self) -> str:
        """The id of the request."""
        return request_id(self.first)

    def is_done(self, wait_s: float) -> bool:
        """Say whether the work is done, after waiting a while for it."""
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def give_up(self) -> None:
        """End the work; there will be no reply."""
        self._desk.interrupt()
        self._thread.join()
        self.reply = None

    def _work(self) -> None:
        try:
            self.reply = self._desk.answer(self.first, self._again)
        except Superseded:
            log.info("work was given up: a newer request is here")
        except StorageError as error:
            log.error("nothing was sent: what leaves is written down first, and that failed: %s", error)
        self.seconds = time.monotonic() - self._started


def serve(connection: Connection, desk: Desk, inbox: Inbox) -> None:
    """Answer messages until the process is told to end.

    Args:
        connection: To the coordinator.
        desk: Answers them.
        inbox: Keeps the message that is being worked on, and its reply, over a crash.
    """
    job = _left_over(connection, desk, inbox)
    while True:
        message = connection.receive()
        if message is not None:
            job = _take_up(connection, desk, inbox, message, job)
        elif job is None:
            time.sleep(POLL_S)
        if job and job.is_done(POLL_S):
            if job.reply:
                reply = job.reply if job.latest is job.first else Message(job.reply.content, reply_to=job.latest)
                inbox.put_reply(reply)
                if not connection.send(reply, job.seconds):
                    log.info("a reply came too late: the run has ended")
            inbox.clear()
            job = None


def _left_over(connection: Connection, desk: Desk, inbox: Inbox) -> Job | None:
    """Go on with what a node that died was working on; a reply that it was sending is sent as it was."""
    message, reply = inbox.message(), inbox.reply()
    if message and reply:
        connection.send(reply, 0.0)
        inbox.clear()
        return None
    return Job(desk, message, again=True) if message else None


def _take_up(connection: Connection, desk: Desk, inbox: Inbox, message: Message, job: Job | None) -> Job | None:
    """Begin the work for a message, unless it is refused, going on already, or done."""
    if not desk.is_from_coordinator(message):
        connection.send(desk.answer(message), 0.0)  # a refusal, and no reason to give up any work
        return job
    request = request_id(message)
    if job and job.request == request:  # sent again, because this node came anew
        job.latest = message
        inbox.put(message)
        return job
    done = inbox.reply()
    if job is None and done and request_id(done) == request:
        log.info("a reply is asked for again")
        connection.send(Message(done.content, reply_to=message), 0.0)
        return None
    if job:
        job.give_up()
    inbox.put(message)
    return Job(desk, message, again=False)


def main(folder: Path) -> None:
    """Serve a site until told to end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = SiteConfig.from_file(folder / SITE_FILE)
    if config.proxy:
        os.environ["HTTPS_PROXY"] = config.proxy
    desk = Desk(folder, config)
    stop_on_signals()
    inbox = Inbox(folder)
    key = load_private_key(Path(config.private_key))
    try:
        with connect(config.server, Path(config.ca), key, folder / "address", inbox.is_full) as connection:
            log.info("connected to %s as %s", config.server, config.name)
            serve(connection, desk, inbox)
    except Stop:
        log.info("the node ends")
    except (NotLetIn, NotTrusted) as error:
        log.error("%s", error)
        raise SystemExit(NOT_LET_IN if isinstance(error, NotLetIn) else NOT_TRUSTED) from None
    finally:
        desk.interrupt()


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
