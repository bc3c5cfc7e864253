"""Trains what is compared: the federation, each site alone, and all data in one place.

All make the same passes over the same questions. A site alone trains in the rounds in which the federation asked it;
pooled training reads, in each round, the data of the sites that were asked. A question is always searched among the
passages of its own site.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from fedrag.config.averaging import ONE_SITE
from fedrag.config.poison_settings import PoisonConfig
from fedrag.config.privacy_settings import PrivacyConfig
from fedrag.config.scenario import Config
from fedrag.config.site_noise_settings import SiteNoiseConfig
from fedrag.data.site_folder import site_name
from fedrag.errors import QuorumError
from fedrag.federation.federate import federate
from fedrag.runs.rate_tries import RateTries
from fedrag.runs.run_folder import RunFolder
from fedrag.runs.training_totals import TrainingTotal, training_totals
from fedrag.simulation.clients import Clients, Parts
from fedrag.simulation.preflight import sites_that_train
from fedrag.types import COMPONENTS, Component, Site, State

Arm = Literal["federated", "local", "pooled"]


@dataclass(frozen=True)
class Arms:
    """The arms of a run that train.

    Attributes:
        run: The run's folder; the federation trains in it.
        clients: A client for each site.
        parts: What is a caller's own.
        sites: The sites that take part.
    """

    run: RunFolder
    clients: Clients
    parts: Parts
    sites: Sequence[Site]

    def config(self, arm: Arm, rates: Mapping[Component, float] | None = None) -> Config:
        """Return the settings that an arm trains with.

        Args:
            arm: Its name.
            rates: Its learning rates; None: those that it tried and found best, or else those of the scenario.
        """
        chosen = RateTries(self.run.path, arm).best() if rates is None else rates
        return arm_config(self.run.config, arm, chosen)

    def train_federated(self, config: Config, path: Path, on_round: Callable[[], None] = lambda: None) -> State:
        """Train all sites together, in a run folder; raise QuorumError where too few can."""
        run = RunFolder(path, config) if path == self.run.path else self._folder(config, path)
        return federate(
            run,
            lambda: self.clients.open_grid(self.parts),
            components=self.parts.components,
            rule=self.parts.rule,
            display=self.parts.display,
            on_round=on_round,
            start=self._start,
        )

    def train_local(self, config: Config, folder: Path) -> dict[str, State]:
        """Train each site alone; return the states by the names of the sites, untouched where it could not train."""
        able = {site.name for site in sites_that_train(config, self.sites, self.parts.components)}
        states: dict[str, State] = {}
        for path in self.clients.folders:
            name = site_name(path)
            idle = [number for number, asked in self._asked.items() if name not in asked]
            alone = replace(self.clients, folders=[path])
            states[name] = self._train_baseline(config, folder / f"local-{name}", alone, idle) if name in able else {}
        return states

    def train_pooled(self, config: Config, folder: Path) -> State:
        """Train on all data in one place."""
        return self._train_baseline(config, folder / "pooled", replace(self.clients, pooled_in=self._asked))

    def totals(self, arm: Arm) -> dict[Component, TrainingTotal]:
        """Return what an arm trained: learning rates, steps and questions of each component."""
        if arm == "federated":
            return training_totals([(self.config(arm), self.run)])
        names = ["pooled"] if arm == "pooled" else [f"local-{site.name}" for site in self.sites]
        paths = [self.baselines / name for name in names]
        runs = [RunFolder.open(path) for path in paths if (path / "run.json").is_file()]
        return training_totals((run.config, run) for run in runs)

    @property
    def baselines(self) -> Path:
        """The folder of the baselines' run folders."""
        return self.run.path / "baselines"

    @cached_property
    def _asked(self) -> dict[int, list[str]]:
        """The names of the sites that the federation asked, and that were not late, by round."""
        return {
            record["round"]: [name for name in record["asked"] if name not in record.get("late", {})]
            for record in self.run.rounds()
        }

    @cached_property
    def _start(self) -> State:
        """The tensors of an earlier run from which every arm starts; none where they start anew."""
        return self.run.load_start()

    def _train_baseline(self, config: Config, path: Path, clients: Clients, idle: Sequence[int] = ()) -> State:
        """Train without others; one that diverges must not cost the whole run, and counts as untouched."""
        display = self.parts.display
        display.say(f"baseline: {path.name}")
        run = self._folder(config, path)
        try:
            state = federate(
                run,
                lambda: clients.open_grid(self.parts),
                components=self.parts.components,
                display=display,
                idle_rounds=idle,
                start=self._start,
            )
        except QuorumError as error:
            display.say(f"{path.name} could not be trained and is measured untouched: {error}")
            return {}
        run.drop_checkpoints()
        return state

    def _folder(self, config: Config, path: Path) -> RunFolder:
        """Return the run folder of a baseline or a try, resumable in the same way as the run."""
        if (path / "run.json").is_file():
            return RunFolder.open(path)
        run = RunFolder.create(config, path, exist_ok=True)
        run.record_facts(self.run.facts)
        return run


def arm_config(config: Config, arm: Arm, rates: Mapping[Component, float]) -> Config:
    """Return a scenario with the settings of one arm: in a baseline nobody is chosen, limited or sent anything.

    Args:
        config: The scenario.
        arm: The arm.
        rates: Learning rates of components, which come before all others.
    """
    changed: dict[str, Any] = {}
    for component in COMPONENTS:
        own = {} if arm == "federated" else getattr(config.evaluation.arms, arm).of(component)
        own |= {"learning_rate": rates[component]} if component in rates else {}
        changed[component] = getattr(config, component).model_copy(update=own)
    if arm != "federated":
        alone = {"fraction": 1.0, "overselect": 0.0, "min_sites": 1}
        plain = {"deliver": False, "proximal_mu": 0.0, "wire": "float32"}
        changed["federation"] = config.federation.model_copy(update=alone | plain | ONE_SITE)
        changed["privacy"] = PrivacyConfig()  # nothing leaves a site, so there is nothing to hide
        changed["simulation"] = config.simulation.model_copy(
            update={"poison": PoisonConfig(), "site_noise": SiteNoiseConfig()}
        )
    return config.model_copy(update=changed)
