"""Where the models that answer come from: a run, a scenario whose models nobody trained, or what a site received."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedrag.config.scenario import Config
from fedrag.data.site_folder import load_site
from fedrag.errors import ConfigError, FedragError
from fedrag.evaluation.answerer import Answerer
from fedrag.rag.indexing import shared_indexes
from fedrag.retrieval.index_cache import INDEXES
from fedrag.runs.facts import require_same_models
from fedrag.runs.run_folder import RunFolder
from fedrag.serving.model_thread import Served
from fedrag.site.admin.evaluate_delivered import load_own_site
from fedrag.site.delivery import (
    HISTORY_FILE,
    MODELS,
    Delivery,
    current_delivery,
    deliveries,
    models_folder,
    open_current,
)
from fedrag.site.site_config import SiteConfig

UNTOUCHED = "untouched"
"""Name of models that nobody trained."""


def open_served(run: Path | None, site_folder: Path) -> Served:
    """Load the models of a run, or the untouched ones of a scenario file or of none, with the index of a site.

    Raises:
        RunError: The run is not finished, or damaged, or a base model is no longer the one it was trained with.
        ConfigError: The scenario is not valid.
        DataError: The site is malformed.
        ModelError: A model is not fetched.
    """
    site = load_site(site_folder)
    if run is None or run.suffix == ".toml":
        config = standard_config(site_folder) if run is None else Config.from_file(run)
        return Served(UNTOUCHED, Answerer(config.on_its_day(), {}, site, indexes=shared_indexes()))
    opened = RunFolder.open(run)
    state = opened.load_result()
    require_same_models(opened)
    return Served(opened.path.resolve().name, Answerer(opened.config, state, site, indexes=shared_indexes()))


def standard_config(data: Path | str) -> Config:
    """Return a scenario with the default of every setting."""
    return Config.from_dict({"name": UNTOUCHED, "data": {"sites": str(data)}})


class DeliveredModels:
    """The models that are current at a site; what is delivered or taken back counts from the next question on.

    Until something is delivered, and after everything was taken back, untouched models answer.

    Args:
        folder: The site's folder.
        config: Its settings.
        say: Takes a line for the administrator.

    Raises:
        DataError: The site's data is malformed.
        ModelError: A model is not fetched, or altered.
        RunError: The list of deliveries cannot be read.
    """

    def __init__(self, folder: Path, config: SiteConfig, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._config = config
        self._say = say
        self._site = load_own_site(config)
        self._changed = self._last_change()
        self._delivery = current_delivery(deliveries(folder))
        self._served = self._load(self._delivery)

    def __call__(self) -> Served:
        """Return the models that are current now; those that answered before where others cannot be loaded."""
        changed = self._last_change()
        if changed != self._changed:
            self._changed = changed
            try:
                delivery = current_delivery(deliveries(self._folder))
                if _models_of(delivery) != _models_of(self._delivery):
                    self._served = self._load(delivery)
                    self._delivery = delivery
                    self._say(f"{self._served.name} answers from now on")
            except FedragError as error:
                self._say(f"{self._served.name} goes on answering: {error}")
        return self._served

    def _last_change(self) -> int:
        path = self._folder / MODELS / HISTORY_FILE
        return path.stat().st_mtime_ns if path.is_file() else 0

    def _load(self, delivery: Delivery | None) -> Served:
        indexes = self._folder / INDEXES
        if delivery is None:
            return Served(UNTOUCHED, Answerer(self._untouched(), {}, self._site, indexes=indexes))
        delivered = open_current(self._folder)
        return Served(delivered.run, Answerer(delivered.config, delivered.state, self._site, indexes=delivered.indexes))

    def _untouched(self) -> Config:
        """Return the scenario of what was delivered last, though it is taken back, or the standard one."""
        found = deliveries(self._folder)
        if found:
            return Config.from_file(models_folder(self._folder, found[-1].run) / "scenario.toml")
        config = standard_config(self._config.data).on_its_day()
        allowed = self._config.policy.base_models
        for name in (config.models.generator, config.models.retriever):
            if allowed and name not in allowed:
                raise ConfigError(f"no models were delivered yet, and {name} is not in policy.base_models")
        return config


def _models_of(delivery: Delivery | None) -> tuple[str, dict[str, str]] | None:
    """Return what tells delivered models from others; what else is recorded of a delivery may change."""
    return (delivery.run, delivery.sha256) if delivery else None
