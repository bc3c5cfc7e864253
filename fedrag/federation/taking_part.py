"""Which sites take part in a run: the greeting, and the draw of those of a round."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

from fedrag import __version__
from fedrag.components.base_models import base_identities
from fedrag.components.spec import find_component
from fedrag.config.scenario import Config
from fedrag.config.schedule import trained_components
from fedrag.display import Display
from fedrag.errors import MessageError, QuorumError
from fedrag.federation.exchange import Federation, KnownSite, replies_as_they_come
from fedrag.federation.greeting import minor_version, open_greeting
from fedrag.federation.messages import GREET, Request, request_content
from fedrag.secure_sum.roster import Member
from fedrag.types import Component, ModelIdentity


def greet_sites(federation: Federation) -> list[KnownSite]:
    """Greet every node until enough have answered, and return the sites that can take part, by name.

    A run that goes on waits for the sites that it had before, too: after a restart of the server they come back one by
    one.

    Raises:
        QuorumError: Fewer than `min_sites` can take part before the time is up.
    """
    grid, config, display = federation.grid, federation.config, federation.display
    settings = config.federation
    end = time.monotonic() + settings.greeting_timeout_s
    content = request_content(Request(config.to_toml()))  # one for all: a grid keeps it once
    known: dict[int, KnownSite | None] = {}
    before = set(federation.run.told_by_sites)
    told_of: set[str] = set()
    while True:
        new = [node_id for node_id in grid.get_node_ids() if node_id not in known]
        messages = [grid.create_message(content, GREET, node, "0") for node in new]
        for message, node_id in replies_as_they_come(grid, messages, max(0.0, end - time.monotonic())):
            known[node_id] = _open_greeting(grid, message, node_id, len(known), display)
        sites = sorted((site for site in known.values() if site), key=lambda site: (site.name, site.node_id))
        enough = len(known) >= len(list(grid.get_node_ids())) and len(sites) >= federation.fewest_sites
        away = _away(grid, before, known)
        if (enough and not away) or time.monotonic() > end:
            break
        if enough and away != told_of:
            display.say(f"waiting for {', '.join(sorted(away))}, which took part before")
            told_of = away
        time.sleep(min(1.0, max(0.0, end - time.monotonic())))
    wait = f"{settings.greeting_timeout_s:g} s"
    nodes = set(grid.get_node_ids())
    if time.monotonic() > end and (silent := len(nodes - known.keys())):
        display.say(f"going on without {silent} of {len(nodes)} clients: no answer within {wait}")
    able = _who_takes_part(sites, federation)
    if len(able) < federation.fewest_sites:
        raise QuorumError(
            f"{len(able)} sites can take part, at least {federation.fewest_sites} are needed; "
            f"the longest wait is {wait}"
        )
    if away:
        display.say(f"going on without {', '.join(sorted(away))}: not back within {wait}")
    return able


def _away(grid: Grid, before: set[str], known: Mapping[int, KnownSite | None]) -> set[str]:
    """Return which of the sites that the run had before it was interrupted have not answered."""
    registered: Mapping[int, str] = getattr(grid, "registered_names", {})
    names = {node_id: site.name if site else registered.get(node_id) for node_id, site in known.items()}
    away = before - set(names.values())
    unreadable = list(names.values()).count(None)
    return away if len(away) > unreadable else set()


def choose_sites(sites: Sequence[KnownSite], count: int, seed: int) -> list[KnownSite]:
    """Draw the sites of one round, in order of name."""
    return sorted(random.Random(seed).sample(list(sites), count), key=lambda site: site.name)


def _open_greeting(grid: Grid, message: Message, node_id: int, number: int, display: Display) -> KnownSite | None:
    """Read a greeting; a grid vouches for who sent it, and for how much it has, by what it knows of the registered."""
    registered: str | None = getattr(grid, "registered_names", {}).get(node_id)
    try:
        greeting = open_greeting(message)
        if registered not in (None, greeting.name):
            raise MessageError("it greets with another name than it is registered under")
        confirmed = getattr(grid, "confirmed_questions", {}).get(node_id, 0)
        member: Member | None = getattr(grid, "members", {}).get(node_id)
        return KnownSite(node_id, greeting, confirmed, member)
    except MessageError as error:
        why = str(error)
    except Exception as error:  # foreign bytes fail in many ways
        why = f"its greeting cannot be read ({type(error).__name__})"
    display.say(f"{registered or f'client {number + 1}'} takes no part: {why}")
    return None


def _sort_lacking(site: KnownSite, federation: Federation) -> str:
    """Return, as a word before "training questions", which of them a site has none of."""
    if not site.greeting.counts.get("train_questions"):
        return ""
    components = trained_components(federation.config.federation)
    sorts = {find_component(federation.components, name).learns_from(federation.config) for name in components}
    return "".join(f"{sort.removesuffix('_questions')} or " for sort in sorted(sorts)).removesuffix("or ")


def _differing_models(
    told: Mapping[str, ModelIdentity], ours: Mapping[Component, ModelIdentity], config: Config
) -> str:
    """Return in which parts a site's base models are not the server's, and what to do; "" where they are the same."""
    unlike = {key: ours[key].differences(told.get(key, ModelIdentity())) for key in ours}
    parts = [f"the {' and the '.join(words)} of its {key}" for key, words in unlike.items() if words]
    names = [config.models.name_of(key) for key, words in unlike.items() if words]
    if not parts:
        return ""
    is_one = len(parts) == 1 and " and " not in parts[0] and not parts[0].startswith(("the tensors", "the prompts"))
    return (
        f"{' and '.join(parts)} {'differs' if is_one else 'differ'} from the server's; "
        f"fetch the same files of {' and '.join(names)} at both, and compare the output of: fedrag models list --json"
    )


def _who_takes_part(sites: Sequence[KnownSite], federation: Federation) -> list[KnownSite]:
    """Leave out, by name, sites without questions to train on, double names and other base models."""
    display = federation.display
    models = base_identities(federation.config, federation.components)
    able: list[KnownSite] = []
    for site in sites:
        if able and able[-1].name == site.name:
            display.say(f"a second client calls itself {site.name}; it takes no part")
        elif not federation.can_take_part(site):
            display.say(f"{site.name} sits out: it has no {_sort_lacking(site, federation)}training questions")
        elif minor_version(site.greeting.version) != minor_version(__version__):
            display.say(f"{site.name} takes no part: it runs fedrag {site.greeting.version}, the server {__version__}")
        elif federation.config.federation.secure and site.member is None:
            display.say(f"{site.name} takes no part: it is registered without an agreement key, which secure sums need")
        elif differing := _differing_models(site.greeting.models, models, federation.config):
            display.say(f"{site.name} takes no part: {differing}")
        else:
            able.append(site)
    return able
