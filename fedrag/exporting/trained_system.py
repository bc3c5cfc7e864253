"""What is exported: a run's or a site's trained tensors, with all that is known of how they came to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedrag.config.scenario import Config
from fedrag.data.site_folder import chosen_folders, hash_site, load_site, site_name
from fedrag.errors import ConfigError, RunError
from fedrag.evaluation.records import Scores, scores_by_question
from fedrag.reporting.arms import read_arms
from fedrag.reporting.what_ran import is_deployed
from fedrag.runs.facts import require_same_models
from fedrag.runs.run_folder import RunFolder
from fedrag.site.delivery import Delivered
from fedrag.types import COMPONENTS, ShippedComponent, Site, State
from fedrag.weights.store import FetchedModel, find_model


@dataclass(frozen=True)
class TrainedSystem:
    """A generator and a retriever of which at least one was trained.

    Attributes:
        name: Name of the run.
        config: Its scenario.
        state: What was trained, by component.
        counts: The numbers of questions that each site told of, by its name; none where they are not known here.
        scores: The metrics of each measured question, by arm.
        rounds: Rounds that were run; 0: not known here.
        is_deployed: Whether the data stayed at the sites; otherwise one machine played them all.
    """

    name: str
    config: Config
    state: State
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    scores: Mapping[str, Scores] = field(default_factory=dict)
    rounds: int = 0
    is_deployed: bool = True

    @classmethod
    def of_run(cls, run: RunFolder) -> TrainedSystem:
        """Read a finished run.

        Raises:
            RunError: It is not finished, or damaged, or a base model is no longer the one it was trained with.
            ModelError: A base model is not fetched.
        """
        state = run.load_result()
        require_same_models(run, state)
        return cls(
            run.path.resolve().name,
            run.config,
            state,
            {site: told["counts"] for site, told in run.told_by_sites.items()},
            {arm: scores_by_question(measured) for arm, measured in read_arms(run).items()},
            len(run.rounds()),
            is_deployed(run),
        )

    @classmethod
    def of_delivery(cls, delivered: Delivered) -> TrainedSystem:
        """Take what a site received; what other sites told the coordinator is not known here."""
        return cls(delivered.run, delivered.config, delivered.state)

    def base(self, component: ShippedComponent) -> FetchedModel:
        """Return the base model of a component."""
        return find_model(self.config.models.name_of(component))

    @property
    def base_keys(self) -> list[ShippedComponent]:
        """The components of the system, trained or not: a search without a generator has one."""
        return [key for key in COMPONENTS if key in self.state or self._is_used(key)]

    def _is_used(self, key: ShippedComponent) -> bool:
        return bool(self.config.rag.passages) if key == "retriever" else "generator" in self.state


def sites_of_run(run: RunFolder) -> list[Site]:
    """Return the data of the sites that took part in a simulation, as the run used it.

    Raises:
        ConfigError: The run was a deployment, whose data stayed at the sites.
        RunError: The data changed since.
        DataError: It cannot be read.
    """
    recorded: dict[str, Any] = run.facts.get("data", {})
    if is_deployed(run):
        raise ConfigError(
            f"{run.path}: the data of a deployed run is at its sites; each writes its own with: fedrag client export"
        )
    data = run.config.data
    folders = chosen_folders(Path(data.sites), data.only, data.hold_out)
    for folder in folders:
        if recorded.get(site_name(folder)) != hash_site(folder):
            raise RunError(f"{run.path}: its data changed since it was trained: {folder}; put it back")
    return [load_site(folder) for folder in folders]
