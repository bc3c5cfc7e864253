"""A grid that signs the coordinator's requests and accepts only replies that the site itself signed.

Flower delivers a message once: a node that is killed at the wrong moment has lost it. A request whose site was lost,
or has restarted since, is therefore sent again with the same id: the site works on it once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from flwr.app import Error, Message, RecordDict
from flwr.app.message.message import make_message
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedrag import __version__
from fedrag.coordinator.conduct import PATIENCE, Conduct
from fedrag.coordinator.patient_grid import BAD_REPLY
from fedrag.display import Display
from fedrag.errors import SignatureError
from fedrag.federation.greeting import open_agreement, with_peers
from fedrag.federation.messages import GREET, Request, request_content
from fedrag.federation.reply_limit import reply_limit, with_limit
from fedrag.federation.signing import Slip, new_request_id, verified_slip, with_signature
from fedrag.secure_sum.roster import Member as RosterMember

LOOK_S = 3.0  # between two checks for sites that restarted
PATIENCE_S = 90.0  # how long a lost site may stay away
FIRST_COPY_S = 30.0  # a request is sent again after this: a SuperLink that was killed loses some too
RARER = 4  # each further copy waits this many times longer: most sites just train, and a copy holds the whole state
LOST = (ErrorCode.NODE_UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Member:
    """A registered site that is online.

    Attributes:
        node_id: Its address.
        name: Its registered name.
        key: Its public key.
        came: When it went online; ISO 8601.
        questions: Questions that were confirmed when it was registered; 0: none were.
        agreement: Its agreement key, signed, for a secure sum; None where it has told none.
    """

    node_id: int
    name: str
    key: EllipticCurvePublicKey
    came: str = ""
    questions: int = 0
    agreement: RosterMember | None = None


@dataclass(slots=True)
class _Pending:
    """A request that awaits its reply.

    Attributes:
        member: The site, as it was when the request was last sent.
        slip: What the signature says.
        message: The request, signed.
        copies: Flower's ids of all copies of it that may still be answered.
        lost: The error that reports a lost copy, until another is sent.
        lost_since: When it came, in seconds of the monotonic clock.
        again_at: When it is sent again in any case, by the same clock.
        wait_s: How long it waits the next time: `RARER` times as long each time.
    """

    member: Member
    slip: Slip
    message: Message
    copies: list[str]
    lost: Message | None = None
    lost_since: float = 0.0
    again_at: float = field(default_factory=lambda: time.monotonic() + FIRST_COPY_S)
    wait_s: float = field(default_factory=lambda: RARER * FIRST_COPY_S)


class SignedGrid(Grid):
    """Wraps a grid; the rounds use it as any other.

    Args:
        grid: Carries the messages.
        run: Name of the run.
        key: The coordinator's signing key.
        members: Gives the registered sites that are online.
        display: Shows which replies had no valid signature.
        conduct: Counts the replies of each site that no honest site sends.
        learn: Keeps the agreement key that a site tells in its greeting, and returns whether it is signed.
        peers: The public signing keys of all sites by name, which a run with a secure sum tells each of them.
    """

    poll_s = 0.3
    """How often the rounds ask for replies."""

    def __init__(
        self,
        grid: Grid,
        run: str,
        key: EllipticCurvePrivateKey,
        members: Callable[[], list[Member]],
        display: Display,
        conduct: Conduct,
        learn: Callable[[RosterMember], bool] = lambda _: False,
        peers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._grid = grid
        self._run = run
        self._key = key
        self._members = members
        self._display = display
        self._conduct = conduct
        self._learn = learn
        self._peers = peers
        self._known: dict[int, Member] = {}
        self._told: dict[str, RosterMember] = {}
        self._asked: dict[str, _Pending] = {}
        self._next_look = 0.0

    @property
    def registered_names(self) -> dict[int, str]:
        """The name that each address is registered under."""
        return {member.node_id: member.name for member in self._known.values()}

    @property
    def confirmed_questions(self) -> dict[int, int]:
        """The number of questions that was confirmed for each address."""
        return {member.node_id: member.questions for member in self._known.values()}

    @property
    def members(self) -> dict[int, RosterMember]:
        """The sites as the roster of a secure sum has them, by address; those alone that have told an agreement key."""
        known = {node_id: self._told.get(member.name, member.agreement) for node_id, member in self._known.items()}
        return {node_id: member for node_id, member in known.items() if member}

    def is_set_aside(self, name: str) -> bool:
        """Return whether a site sent too many bad replies."""
        return name in self._conduct.set_aside()

    def note_bad_reply(self, name: str, why: str) -> None:
        """Count a reply that no honest site sends, and say where it was one too many.

        Args:
            name: Name of the site.
            why: What is wrong, in words joined by underscores.
        """
        if self._conduct.note_bad_reply(name, why):
            self._display.say(
                f"{name} is set aside after {PATIENCE} bad replies ({why}); fedrag server let-in lets it in again"
            )

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._grid.run

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return all nodes of the wrapped grid."""
        return self._grid.get_nodes()

    def online(self) -> dict[int, Member]:
        """Return the registered sites that are online, by address."""
        found = {member.node_id: member for member in self._members()}
        self._known |= found
        return found

    def get_node_ids(self) -> list[int]:
        """Return the addresses of the registered sites that are online."""
        return list(self.online())

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Write a message; it is signed when it is pushed."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Sign requests and send them, one at a time.

        An exception of the wrapped grid passes to the caller: earlier requests were sent, later ones were not.
        """
        ids: list[str] = []
        for message in messages:
            metadata = message.metadata
            member = self._known[metadata.dst_node_id]
            slip = Slip(
                "request", self._run, new_request_id(), member.name, metadata.message_type, __version__, time.time()
            )
            content = message.content
            if metadata.message_type == GREET and self._peers:
                content = with_peers(content, self._peers)
            signed = with_signature(content, slip, self._key)
            group = with_limit(metadata.group_id, reply_limit(message.content))
            out = self.create_message(signed, metadata.message_type, metadata.dst_node_id, group, metadata.ttl)
            (message_id,) = self._grid.push_messages([out])
            self._asked[message_id] = _Pending(member, slip, out, [message_id])
            ids.append(message_id)
        return ids

    def withdraw(self, message_ids: Iterable[str]) -> None:
        """Forget requests that nobody waits for, and greet their sites: a newer request ends the work on an older."""
        online = self.online()
        for message_id in message_ids:
            asked = self._asked.pop(message_id, None)
            if asked is None or asked.member.node_id not in online:
                continue
            scenario = str(asked.message.content.config_records["request"]["scenario"])
            content, node_id = request_content(Request(scenario)), asked.member.node_id
            for greeting in self.push_messages([self.create_message(content, GREET, node_id, "0")]):
                del self._asked[greeting]  # nobody reads the answer

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Fetch replies; one that its site did not sign becomes an error, and lost requests are sent again."""
        waiting = {message_id: self._asked[message_id] for message_id in message_ids if message_id in self._asked}
        first_of = {copy: message_id for message_id, asked in waiting.items() for copy in asked.copies}
        found = []
        for reply in self._grid.pull_messages(list(first_of)):
            message_id = first_of[reply.metadata.reply_to_message_id]
            asked = self._asked.get(message_id)
            if asked is None:
                continue  # another copy was answered in this same pull
            if reply.has_error() and reply.error.code in LOST:
                asked.copies.remove(reply.metadata.reply_to_message_id)
                asked.lost, asked.lost_since = reply, time.monotonic()
                continue
            found.append(self._checked(_as_reply_to(reply, message_id), asked))
            del self._asked[message_id]
        return found + self._resend_lost(waiting)

    def _resend_lost(self, waiting: Mapping[str, _Pending]) -> list[Message]:
        """Send lost requests again to sites that are back; give up on those that stay away."""
        if time.monotonic() < self._next_look:
            return []
        self._next_look = time.monotonic() + LOOK_S
        online = self.online()
        given_up = []
        for message_id, asked in waiting.items():
            member = online.get(asked.member.node_id)
            if message_id not in self._asked:
                continue
            now = time.monotonic()
            if member and (asked.lost or member.came != asked.member.came or now > asked.again_at):
                asked.member, asked.lost = member, None
                asked.again_at, asked.wait_s = now + asked.wait_s, RARER * asked.wait_s
                asked.message = self._copy(asked.message)
                asked.copies += self._grid.push_messages([asked.message])
            elif asked.lost and now - asked.lost_since > PATIENCE_S:
                given_up.append(_as_reply_to(asked.lost, message_id))
                del self._asked[message_id]
        return given_up

    def _copy(self, message: Message) -> Message:
        metadata = message.metadata
        return self.create_message(
            message.content, metadata.message_type, metadata.dst_node_id, metadata.group_id, metadata.ttl
        )

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push messages and pull until every reply is here, or `timeout` seconds have passed."""
        waiting = set(self.push_messages(messages))
        end = float("inf") if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and time.monotonic() < end:
            found = self.pull_messages(waiting)
            waiting -= {reply.metadata.reply_to_message_id for reply in found}
            replies += found
            time.sleep(0 if found else self.poll_s)
        return replies

    def _checked(self, reply: Message, asked: _Pending) -> Message:
        if reply.has_error():
            if reply.error.code == BAD_REPLY:
                self.note_bad_reply(asked.member.name, str(reply.error.reason))
            return reply
        try:
            said, wanted = verified_slip(reply.content, "reply", asked.member.key), asked.slip
            if not said.request and "refusal" in reply.content:
                return reply  # it could not tell what it was asked
            if (said.run, said.request, said.site, said.kind) != (wanted.run, wanted.request, wanted.site, wanted.kind):
                raise SignatureError("the reply answers another request")
            if wanted.kind == GREET:
                self._take_agreement(reply.content, asked.member)
        except Exception as error:  # a record of foreign bytes fails in many ways
            reason = str(error) if isinstance(error, SignatureError) else "the reply cannot be read"
            self._display.say(f"{asked.member.name}: {reason}")
            self.note_bad_reply(asked.member.name, "signature_not_valid")
            return make_message(reply.metadata, error=Error(BAD_REPLY, "signature_not_valid"))
        return reply

    def _take_agreement(self, greeting: RecordDict, member: Member) -> None:
        """Keep the agreement key that a site tells, for this run and in the register."""
        told, known = open_agreement(greeting, member.name), member.agreement
        # A signature differs each time, and a sum that is asked for again must be asked for with the same bits.
        is_new = known is None or told is None or known.key != told.key
        if told and is_new and self._learn(told):
            self._told[member.name] = told


def _as_reply_to(reply: Message, message_id: str) -> Message:
    """Make a reply to a copy answer the message that the rounds know."""
    reply.metadata.__dict__["_reply_to_message_id"] = message_id
    return reply
