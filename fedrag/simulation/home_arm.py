"""The arm "personalised": each site trains the federated result on at home, and keeps what gains there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fedrag.errors import MessageError, RunError
from fedrag.evaluation.records import Measured, read_measured
from fedrag.federation.exchange import KnownSite, ask
from fedrag.federation.greeting import Greeting
from fedrag.federation.messages import HOME, Request, request_content
from fedrag.runs.home_results import HOME_FOLDER, TrainedAtHome, home_scores, kept_text, key_of, load_home, save_home
from fedrag.simulation.preflight import sites_that_train
from fedrag.simulation.train_arms import Arms
from fedrag.types import Site, State

MeasureSites = Callable[[Sequence[Site], State], list[Measured]]
"""Measures a state on sites."""


@dataclass(frozen=True)
class Homes:
    """What the sites of a run have after their training at home.

    Attributes:
        arms: The arms of the run.
        result: The federated result, from which all began.
    """

    arms: Arms
    result: State

    def train(self) -> None:
        """Let each site that has not done so train at home; a site that cannot keeps the federated result."""
        missing = [name for name in self._able if not self._has(name)]
        if not missing:
            return
        run, parts = self.arms.run, self.arms.parts
        config = self.arms.config("federated")
        parts.display.say(f"training at home: {len(missing)} of {len(self._able)} sites")
        settings = config.federation
        request = Request(config.to_toml(), settings.rounds + 1, self.result, deadline_s=settings.deadline_s)
        with self.arms.clients.open_grid(parts) as grid:
            sites = [
                KnownSite(node.node_id, Greeting(node.name, "", {}, {}))
                for node in grid.get_nodes()
                if node.name in missing
            ]
            asked = ask(grid, HOME, request, request_content(request), sites)
            for done, (site, reply) in enumerate(asked, start=1):
                if isinstance(reply, MessageError):
                    parts.display.say(f"{site.name} keeps the federated models: {reply}")
                    save_home(self._folder(site.name), self._key, TrainedAtHome(why=str(reply)))
                elif not self._has(site.name):
                    raise RunError(f"{site.name} trained at home and left nothing in {run.path / 'sites'}")
                parts.display.progress("training at home", done, len(sites))
        parts.display.say(kept_text(home_scores(run.path)))

    def measure(self, measured: MeasureSites) -> list[Measured]:
        """Return the records of each site with what it keeps; of one that keeps nothing, those of the federated arm."""
        federated = read_measured(self.arms.run.path / "evaluation" / "federated.jsonl")
        found: list[Measured] = []
        for site in self.arms.sites:
            home = load_home(self._folder(site.name), self._key)
            if home and home.kept:
                found += measured([site], {**self.result, **home.kept})
            else:
                found += [item for item in federated if item.site == site.name]
        return found

    @cached_property
    def _able(self) -> list[str]:
        arms = self.arms
        return [site.name for site in sites_that_train(arms.run.config, arms.sites, arms.parts.components)]

    @cached_property
    def _key(self) -> str:
        return key_of(self.result, self.arms.run.config.federation.personalise)

    def _folder(self, name: str) -> Path:
        return self.arms.run.path / HOME_FOLDER / name

    def _has(self, name: str) -> bool:
        """Return whether a site is done; what it left in its own folder is taken over, also of an interrupted run."""
        folder, left = self._folder(name), self.arms.run.path / "sites" / name / HOME_FOLDER
        if load_home(left, self._key):
            shutil.rmtree(folder, ignore_errors=True)
            folder.parent.mkdir(exist_ok=True)
            left.replace(folder)
        return load_home(folder, self._key) is not None
