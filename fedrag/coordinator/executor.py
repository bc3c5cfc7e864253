"""The process that runs the rounds of one run: `python -m fedrag.coordinator.executor DIR`.

It takes the run that DIR/current.json names, continues after its last checkpoint, and notes how it ended. When it
dies, the coordinator's service starts another, which continues in the same way. With the name of a finished run as
second argument it delivers the result to the sites that were offline when the run ended.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from flwr.serverapp import Grid

from fedrag.components.base_models import required_models
from fedrag.components.earlier_result import take_start
from fedrag.components.own_functions import own_facts, own_rule, require_same_functions
from fedrag.coordinator.conduct import Conduct
from fedrag.coordinator.flower import RegisteredNode, SuperLink
from fedrag.coordinator.outcome import Outcome, sites_without_result, write_outcome
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.coordinator.signed_grid import Member, SignedGrid
from fedrag.display import LogDisplay
from fedrag.errors import FedragError, ServiceError, StorageError
from fedrag.federation.exchange import Federation, KnownSite
from fedrag.federation.federate import federate
from fedrag.federation.greeting import Greeting
from fedrag.federation.rounds import deliver
from fedrag.runs.facts import collect_facts, require_same_models
from fedrag.runs.run_folder import RunFolder
from fedrag.security.keys import load_private_key
from fedrag.service.stopping import Stop, stop_on_signals
from fedrag.tracking.follow import following


class TimedLog(LogDisplay):
    """Plain lines with the time of day before each."""

    def say(self, line: str) -> None:
        """Print one line."""
        super().say(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}")


def main(path: Path) -> None:
    """Run the current run to its end."""
    stop_on_signals()
    folder = ServerFolder.open(path)
    name = folder.current()["run"]
    run = RunFolder.open(folder.runs / name)
    display = TimedLog()
    try:
        write_outcome(run.path, Outcome("running"))
        write_outcome(run.path, _outcome(folder, name, run, display))
        folder.end()
    except Stop:
        raise SystemExit(0) from None  # whoever stopped it notes why
    except StorageError as error:
        display.say(str(error))  # not even how it ended can be written down; the service waits for room
        raise SystemExit(1) from None
    except Exception:
        for line in traceback.format_exc().splitlines():  # it may quote what a site sent
            display.say(line)
        raise SystemExit(1) from None  # the service tries again


def _outcome(folder: ServerFolder, name: str, run: RunFolder, display: TimedLog) -> Outcome:
    try:
        _run(folder, name, run, display)
    except FedragError as error:
        display.say(f"{name} stopped: {error}")
        return Outcome("stopped", str(error))
    display.say(f"{name} is finished")
    return Outcome("finished")


def redeliver(path: Path, name: str) -> None:
    """Deliver the result of a finished run to the sites that missed it and are online now."""
    stop_on_signals()
    folder = ServerFolder.open(path)
    run = RunFolder.open(folder.runs / name)
    display = TimedLog()
    with suppress(Stop), _grid(folder, name, display) as grid:
        names = {member.name: node_id for node_id, member in grid.online().items()}
        missing = [
            KnownSite(names[site], Greeting(site, "", {}, {}))
            for site in sites_without_result(folder, run)
            if site in names
        ]
        reached = deliver(Federation(grid, run, display=display), missing, run.load_result())
        run.record_delivery([*run.delivered_to, *reached])


def _run(folder: ServerFolder, name: str, run: RunFolder, display: TimedLog) -> None:
    if not run.facts:
        run.record_facts(collect_facts(run.config, required_models(run.config), ()) | own_facts(run.config.own))
    require_same_models(run)
    require_same_functions(run)
    take_start(run)
    with following(run, run.config.tracking.to, display) as trackers:
        federate(
            run,
            lambda: _grid(folder, name, display),
            rule=own_rule(run.config.own),
            display=display,
            on_round=trackers.catch_up,
        )
    run.drop_checkpoints()


@contextmanager
def _grid(folder: ServerFolder, name: str, display: TimedLog) -> Iterator[SignedGrid]:
    """Yield a grid that signs, over a new run of Flower's."""
    link = folder.link
    link.wait_until_ready()
    if left := folder.current().get("flower_run"):
        link.stop_run(left)  # the process before this one died in it; no site should work for it any longer
    number = link.start_run()
    if folder.current():
        folder.note(flower_run=number)
    with link.grid(number) as flower:
        yield _signed(folder, link, flower, name, display)


def _nodes(link: SuperLink) -> list[RegisteredNode]:
    """Return the nodes, once the SuperLink answers."""
    while True:
        link.wait_until_ready()
        with suppress(ServiceError):  # it stopped in between
            return link.nodes()


def _signed(folder: ServerFolder, link: SuperLink, flower: Grid, name: str, display: TimedLog) -> SignedGrid:
    keys = {site.name: site.public_key for site in folder.register.sites()}
    conduct = Conduct(folder.path)

    def members() -> list[Member]:
        # Read again: a site may have been removed or set aside meanwhile.
        registered = {site.name: site for site in folder.register.sites() if site.name not in conduct.set_aside()}
        nodes = [node for node in _nodes(link) if node.online and node.name in registered]
        return [
            Member(node.node_id, site.name, keys[site.name], node.last_seen, site.questions, site.member)
            for node in nodes
            if (site := registered[node.name]).name in keys
        ]

    if not keys:
        raise ServiceError(f"no site is registered; enter one with: fedrag server add-site {folder.path} SITE.pub")
    signing_key, learn = load_private_key(folder.path / "signing.key"), folder.register.learn_agreement
    is_secure = RunFolder.open(folder.runs / name).config.federation.secure
    told = {site.name: site.key for site in folder.register.sites()} if is_secure else {}
    return SignedGrid(flower, name, signing_key, members, display, conduct, learn, told)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        redeliver(Path(sys.argv[1]), sys.argv[2])
    else:
        main(Path(sys.argv[1]))
