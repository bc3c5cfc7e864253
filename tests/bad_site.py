"""A registered site gone bad: its key is good, and what it sends is not."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from bad_replies import BAD_REPLIES, Change
from flwr.app import Message
from foul_messages import answering_another, garbage, large, next_request

from fedrag.federation.messages import TRAIN
from fedrag.federation.signing import request_id, verified_slip, with_signature
from fedrag.security.keys import load_private_key
from fedrag.site.service.connection import connect
from fedrag.site.service.request_handler import RequestHandler
from fedrag.site.site_config import SITE_FILE, SiteConfig

Answer = Callable[[Message, Message], Message | None]
"""Makes something of an honest reply and the request that it answers."""


class BadSite:
    """Does the work of a site as an honest one does, and sends what it likes.

    Args:
        folder: The site's folder.
        other: Folder of another site, whose key it does not have.
    """

    def __init__(self, folder: Path, other: Path) -> None:
        self._folder = folder
        self._other = other
        self._key = load_private_key(folder / "site.key")
        self._late: list[Message] = []

    def serve(self, answers: Iterator[Answer], until: Callable[[], bool]) -> None:
        """Answer each round of training with the next of these, and all else honestly."""
        config = SiteConfig.from_file(self._folder / SITE_FILE)
        handler, seen = RequestHandler(self._folder, config), set[str]()
        address = self._folder / "address"
        with connect(config.server, Path(config.ca), self._key, address, lambda: False) as connection:
            while not until():
                asked = connection.receive()
                if asked is None or request_id(asked) in seen:
                    time.sleep(0.1)
                    continue
                seen.add(request_id(asked))
                reply: Message | None = handler.answer(asked)
                if asked.metadata.message_type == TRAIN:
                    while self._late:
                        connection.send(self._late.pop(), 0.0)
                    if answer := next(answers, None):
                        reply = answer(reply, asked)
                if reply:
                    connection.send(reply, 0.0)
        handler.interrupt()

    def changed(self, reply: Message, asked: Message, change: Change) -> Message:
        """Change an honest reply and sign what came of it."""
        slip = verified_slip(reply.content, "reply", self._key.public_key())
        change(reply.content)
        return Message(with_signature(reply.content, slip, self._key), reply_to=asked)

    def tampered(self, reply: Message, asked: Message) -> Message:
        """Change a number after it was signed."""
        reply.content["metrics"]["num-examples.generator"] = 3
        return Message(reply.content, reply_to=asked)

    def signed_by_another(self, reply: Message, asked: Message) -> Message:
        """Claim to be another site; the signature is its own, for it has no other key."""
        slip = verified_slip(reply.content, "reply", self._key.public_key())
        claimed = replace(slip, site=self._other.name)
        return Message(with_signature(reply.content, claimed, self._key), reply_to=asked)

    def claims_the_next_request(self, reply: Message, asked: Message) -> Message:
        """Register the record of the next round, in an honest reply, as one that has something below it."""
        return self.changed(reply, asked, lambda content: content.update({"claim": next_request(asked)}))

    def kept_back(self, reply: Message, asked: Message) -> None:
        """Send it when the next round is on."""
        self._late.append(reply)

    def faults(self) -> list[Answer]:
        """Return every way in which it can misbehave within a round, but that of being late, which takes a minute."""
        changed: list[Answer] = [partial(self.changed, change=change) for change, _ in BAD_REPLIES.values()]
        foul: list[Answer] = [
            lambda reply, asked: garbage(asked),
            lambda reply, asked: answering_another(reply),
            lambda reply, asked: large(asked, 5),
        ]
        return [*changed, *foul, self.tampered, self.signed_by_another, self.claims_the_next_request]

    def at_random(self, chance: random.Random) -> Iterator[Answer]:
        """Yield one way of misbehaving after the other, without end."""
        while True:
            yield chance.choice(self.faults())
