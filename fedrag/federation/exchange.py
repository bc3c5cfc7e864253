"""The sites of a run, and the exchange of messages with them."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from fedrag import __version__
from fedrag.config.scenario import Config
from fedrag.config.schedule import trained_components
from fedrag.display import Display
from fedrag.errors import MessageError, QuorumError
from fedrag.federation.messages import GREET, Greeting, Request, minor_version, open_greeting, request_content
from fedrag.types import Component
from fedrag.weights.base_models import base_tensor_hashes

POLL_S = 0.05
IDS_PER_POLL = 4  # Flower fetches every ready reply of a poll into memory at once


@dataclass(frozen=True, slots=True)
class KnownSite:
    """A site that answered the greeting. Its node id is an address: never shown, never a seed."""

    node_id: int
    greeting: Greeting

    @property
    def name(self) -> str:
        """The site's name."""
        return self.greeting.name


def greet_sites(grid: Grid, config: Config, display: Display) -> list[KnownSite]:
    """Greet every node until enough have answered, and return the sites that can take part, by name.

    Raises:
        QuorumError: Fewer than `min_sites` can take part before the time is up.
    """
    settings = config.federation
    end = time.monotonic() + settings.greeting_timeout_s
    request = Request(config.to_toml())
    known: dict[int, KnownSite | None] = {}
    while True:
        new = [node_id for node_id in grid.get_node_ids() if node_id not in known]
        messages = [grid.create_message(request_content(request), GREET, node, "0") for node in new]
        for message, node_id in replies_as_they_come(grid, messages, max(0.0, end - time.monotonic())):
            known[node_id] = _open_greeting(grid, message, node_id, len(known), display)
        sites = sorted((site for site in known.values() if site), key=lambda site: (site.name, site.node_id))
        enough = len(known) >= len(list(grid.get_node_ids())) and len(sites) >= settings.min_sites
        if enough or time.monotonic() > end:
            break
        time.sleep(min(1.0, max(0.0, end - time.monotonic())))
    able = _who_takes_part(sites, config, display)
    if len(able) < settings.min_sites:
        raise QuorumError(
            f"{len(able)} sites can take part, at least {settings.min_sites} are needed; "
            f"the longest wait is {settings.greeting_timeout_s:g} s"
        )
    return able


def can_train(counts: Mapping[str, int], component: Component, config: Config) -> bool:
    """Say whether a site has questions that train a component; the contrastive loss needs labelled ones.

    Args:
        counts: What the site told of its questions in its greeting.
        component: The component.
        config: The scenario.
    """
    labelled = component == "retriever" and not config.retriever.uses_lsr
    return counts.get("labelled_questions" if labelled else "train_questions", 0) > 0


def choose_sites(sites: Sequence[KnownSite], fraction: float, seed: int) -> list[KnownSite]:
    """Draw the sites of one round, in order of name; at least one."""
    count = max(1, math.ceil(fraction * len(sites) - 1e-9))
    return sorted(random.Random(seed).sample(list(sites), count), key=lambda site: site.name)


def replies_as_they_come(grid: Grid, messages: Sequence[Message], timeout_s: float) -> Iterator[tuple[Message, int]]:
    """Push messages and yield (reply, node id) as replies arrive, until all are there or time is up.

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
        ids = list(waiting)
        ids_per_poll = len(ids) if one_a_pull else IDS_PER_POLL
        for start in range(0, len(ids), ids_per_poll):
            for reply in grid.pull_messages(ids[start : start + ids_per_poll]):
                arrived = True
                yield reply, waiting.pop(reply.metadata.reply_to_message_id)
            if time.monotonic() > end:
                return
        if not arrived and not one_a_pull:
            time.sleep(getattr(grid, "poll_s", POLL_S))


def _open_greeting(grid: Grid, message: Message, node_id: int, number: int, display: Display) -> KnownSite | None:
    """Read a greeting; a grid that has `registered_names` vouches for who sent it."""
    registered: str | None = getattr(grid, "registered_names", {}).get(node_id)
    try:
        greeting = open_greeting(message)
        if registered not in (None, greeting.name):
            raise MessageError("it greets with another name than it is registered under")
        return KnownSite(node_id, greeting)
    except MessageError as error:
        display.say(f"{registered or f'client {number + 1}'} takes no part: {error}")
        return None


def _who_takes_part(sites: Sequence[KnownSite], config: Config, display: Display) -> list[KnownSite]:
    """Leave out, by name, sites without questions to train on, double names and other base models."""
    components = trained_components(config.federation)
    hashes = base_tensor_hashes(config)
    able: list[KnownSite] = []
    for site in sites:
        if able and able[-1].name == site.name:
            display.say(f"a second client calls itself {site.name}; it takes no part")
        elif not any(can_train(site.greeting.counts, component, config) for component in components):
            labelled = "labelled " if site.greeting.counts.get("train_questions") else ""
            display.say(f"{site.name} sits out: it has no {labelled}training questions")
        elif minor_version(site.greeting.version) != minor_version(__version__):
            display.say(f"{site.name} takes no part: it runs fedrag {site.greeting.version}, the server {__version__}")
        elif site.greeting.tensor_hashes != hashes:
            display.say(f"{site.name} takes no part: its base models have other tensors than the server's")
        else:
            able.append(site)
    return able
