"""The sites of a run, and the exchange of messages with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components, find_component
from fedrag.config.scenario import Config
from fedrag.config.schedule import components_of
from fedrag.display import Display, Quiet
from fedrag.errors import MessageError
from fedrag.federation.aggregation import Rule
from fedrag.federation.greeting import Greeting
from fedrag.federation.messages import DELIVER, TRAIN, Reply, Request, drop_arrays, open_reply
from fedrag.federation.update import Manifest
from fedrag.runs.run_folder import RunFolder
from fedrag.secure_sum.roster import MIN_SITES, Member
from fedrag.types import Component, State

POLL_S = 0.05
IDS_PER_POLL = 4  # Flower fetches every ready reply of a poll into memory at once
SAFETY_S = 60.0  # a site stops at the deadline; the server waits a little longer for what it then says


@dataclass(frozen=True, slots=True)
class KnownSite:
    """A site that answered the greeting.

    Attributes:
        node_id: Its address: never shown, never a seed.
        greeting: What it said.
        confirmed: Questions that were confirmed when it was registered; 0: none were.
        member: Its agreement key for secure sums, as it was registered; None: it has none.
    """

    node_id: int
    greeting: Greeting
    confirmed: int = 0
    member: Member | None = None

    @property
    def name(self) -> str:
        """The site's name."""
        return self.greeting.name


@dataclass(frozen=True, slots=True)
class Federation:
    """What the rounds of a run work with.

    Attributes:
        grid: The only way to the sites.
        run: The run's folder, with its scenario.
        components: What can be trained, by name.
        rule: An aggregation rule of one's own instead of the weighted mean.
        display: Shows lines and progress.
        idle_rounds: Rounds in which nobody trains, and the state stays as it is.
        on_round: Called before the first round and after each, when the run's log holds it.
        start: Tensors of an earlier run, by component, that take the place of new ones.
    """

    grid: Grid
    run: RunFolder
    components: Components = field(default_factory=lambda: SHIPPED)
    rule: Rule | None = None
    display: Display = Quiet()
    idle_rounds: Collection[int] = ()
    on_round: Callable[[], None] = lambda: None
    start: State = field(default_factory=dict)

    @property
    def config(self) -> Config:
        """The scenario."""
        return self.run.config

    def can_train(self, site: KnownSite, names: Sequence[Component]) -> bool:
        """Return whether a site has questions that train one of these components, and is not set aside."""
        if _is_set_aside(self.grid, site.name):
            return False
        counts = site.greeting.counts
        # A secure sum to which one site alone gives its update of a component is that site's update.
        some = all if self.config.federation.secure else any
        return some(find_component(self.components, name).can_train(counts, self.config) for name in names)

    def can_take_part(self, site: KnownSite) -> bool:
        """Return whether a round of the run is for a site: it can train what such a round trains."""
        settings = self.config.federation
        trainings = {components_of(settings, number) for number in range(1, settings.rounds + 1)}
        return any(self.can_train(site, components) for components in trainings)

    @property
    def fewest_sites(self) -> int:
        """The fewest sites that the run can begin with."""
        settings = self.config.federation
        return max(settings.min_sites, MIN_SITES) if settings.secure else settings.min_sites


class LateError(MessageError):
    """A site had not answered when enough others had."""


def ask(
    grid: Grid,
    kind: str,
    request: Request,
    content: RecordDict,
    sites: Sequence[KnownSite],
    is_enough: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[KnownSite, Reply | MessageError]]:
    """Send sites a request and yield what each makes of it as it comes: a reply that was opened, or what is wrong.

    A site that has not answered in time comes last. The arrays of a reply are gone once the next one is asked for.

    Args:
        grid: The only way to the sites.
        kind: Message type: `TRAIN`, `VALIDATE` or `DELIVER`.
        request: What is asked.
        content: The request as it goes out; one serves all sites.
        sites: Who is asked.
        is_enough: Whether those that have not answered need not be waited for.
    """
    trains = kind == TRAIN
    manifests = {c: request.manifest(c) for c in request.components} if trains else {}
    group = "delivery" if kind == DELIVER else str(request.round_number)
    sent = Sent(kind, lambda _: content, group, request.deadline_s, is_enough)
    for site, message in answers(grid, sent, sites):
        if isinstance(message, MessageError):
            yield site, message
        else:
            yield site, _opened(message, request, manifests)


def _leave(message_ids: list[str]) -> None:
    """Leave messages that nobody waits for as they are."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What sites are sent, and how long they are waited for.

    Attributes:
        kind: Message type.
        content: Gives what a site is sent.
        group: Group of the messages.
        deadline_s: Seconds that a site has.
        is_enough: Whether those that have not answered need not be waited for.
    """

    kind: str
    content: Callable[[KnownSite], RecordDict]
    group: str
    deadline_s: float
    is_enough: Callable[[], bool] = lambda: False

    @property
    def wait_s(self) -> float:
        """Return for how long answers are waited for."""
        return self.deadline_s + SAFETY_S if self.kind == TRAIN else self.deadline_s

    @property
    def ttl(self) -> float | None:
        """Return the seconds after which a message is delivered no more; None: Flower's own."""
        return self.wait_s if self.kind == TRAIN else None


def answers(grid: Grid, sent: Sent, sites: Sequence[KnownSite]) -> Iterator[tuple[KnownSite, Message | MessageError]]:
    """Send each site a message and yield its answer as it comes, unread; who has not answered in time comes last.

    A site that trains, and is not waited for any more, is told to stop by a grid that can.
    The arrays of an answer are gone once the next one is asked for.
    """
    silent = {site.node_id: site for site in sites if not _is_set_aside(grid, site.name)}
    messages = [
        grid.create_message(sent.content(site), sent.kind, node_id, sent.group, sent.ttl)
        for node_id, site in silent.items()
    ]
    asked = set(silent)
    withdraw: Callable[[list[str]], None] = getattr(grid, "withdraw", _leave) if sent.kind == TRAIN else _leave
    for message, node_id in replies_as_they_come(grid, messages, sent.wait_s, sent.is_enough, withdraw):
        site = silent.pop(node_id)
        try:
            yield site, message
        finally:
            drop_arrays(message)
    closed = bool(silent) and sent.is_enough()
    for site in silent.values():
        late = LateError("late: enough others had replied")
        yield site, late if closed else MessageError(f"no reply within {sent.deadline_s:g} s")
    for site in sites:
        if site.node_id not in asked:
            yield site, MessageError("it is set aside")


def _is_set_aside(grid: Grid, name: str) -> bool:
    """Return whether a grid that judges its sites has nothing more to do with one."""
    return bool(getattr(grid, "is_set_aside", lambda _: False)(name))


def _opened(message: Message, request: Request, manifests: Mapping[Component, Manifest]) -> Reply | MessageError:
    try:
        return open_reply(message, manifests, request.wire, request.components)
    except MessageError as error:
        return error
    except Exception as error:  # records of foreign bytes fail in many ways, and one reply ends no run
        return MessageError(f"its reply cannot be read ({type(error).__name__})")


def replies_as_they_come(
    grid: Grid,
    messages: Sequence[Message],
    timeout_s: float,
    is_enough: Callable[[], bool] = lambda: False,
    withdraw: Callable[[list[str]], None] = _leave,
) -> Iterator[tuple[Message, int]]:
    """Push messages and yield (reply, node id) as replies arrive, until all are there, or enough, or time is up.

    Once there are enough, `withdraw` is given the ids of the messages that nobody has answered.

    Replies are matched by the id of the message they answer: a lost node's error names no node. A grid with
    `one_reply_a_pull` is asked for all of them at once: it gives no more than one, and waits for it itself. One
    with `poll_s` is asked that often: over a network a question costs more than a function call.
    """
    nodes = [message.metadata.dst_node_id for message in messages]
    waiting = dict(zip(grid.push_messages(messages), nodes, strict=True))
    end = time.monotonic() + timeout_s
    one_a_pull = getattr(grid, "one_reply_a_pull", False)
    while waiting:
        arrived = False
        for ids in [waiting.keys()] if one_a_pull else _groups(list(waiting)):
            for reply in grid.pull_messages(ids):
                arrived = True
                yield reply, waiting.pop(reply.metadata.reply_to_message_id)
                if is_enough():
                    withdraw(list(waiting))
                    return
            if time.monotonic() > end or is_enough():
                return
        if not arrived and not one_a_pull:
            time.sleep(getattr(grid, "poll_s", POLL_S))


def _groups(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[start : start + IDS_PER_POLL] for start in range(0, len(ids), IDS_PER_POLL)]
