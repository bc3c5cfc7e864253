"""Where a site's data, models and caches lie. No path ever leaves the site."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedrag.config.scenario import Config
from fedrag.data.canaries import with_canaries
from fedrag.data.pooling import pool_sites
from fedrag.data.site_folder import chosen_folders, load_site, site_name
from fedrag.errors import ConfigError
from fedrag.retrieval.index_cache import INDEXES
from fedrag.types import Site
from fedrag.weights.store import fedrag_home

SCORES = "answer-scores"
DIAGNOSIS_ANSWERS = "diagnosis-answers"


@dataclass(frozen=True, slots=True)
class SitePaths:
    """The paths of a site and the name that it goes by: from its node configuration, never from the server.

    Attributes:
        name: The site's name.
        folder: The folder of its data.
        cache: The folder of delivered models.
        scores: The folder of cached answer scores.
        indexes: The folder of indexes.
        run: Name of the run, under which delivered models are saved; empty where it has none.
        pooled: Folders of the sites whose data a simulation pools in this one; at a site of its own, none.
        pooled_in: Names of those whose data a round trains on, by round; all of them in a round that is not named.
        canaries: How many canaries a simulation has at each site, and their seed; a site of its own plants them itself.
        max_rank: Largest rank of the adapters that a simulation trains at the site; 0: that of the scenario.
    """

    name: str
    folder: Path
    cache: Path
    scores: Path
    indexes: Path
    run: str = ""
    pooled: tuple[Path, ...] = ()
    pooled_in: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    canaries: tuple[int, int] = (0, 0)
    max_rank: int = 0

    @classmethod
    def from_node_config(cls, node_config: Mapping[str, object], config: Config) -> SitePaths:
        """Return the paths of the site that this process serves.

        A launcher sets `site-folder`, and optionally `site-name`, `site-cache`, `score-cache` and `index-cache`; a
        simulation sets `canaries` and `max-rank` as well, and `pooled` where one client holds the data of several
        sites. Flower's own simulation sets `partition-id` alone: it numbers the scenario's sites in order of their
        names.

        Raises:
            ConfigError: The node configuration has neither.
        """
        folder = Path(str(node_config["site-folder"])) if "site-folder" in node_config else None
        if folder is None:
            folder = _folder_of_partition(node_config, config)
        name = str(node_config.get("site-name", site_name(folder)))
        cache = Path(str(node_config.get("site-cache") or fedrag_home() / "sites" / name))
        scores = Path(str(node_config.get("score-cache") or cache / SCORES))
        indexes = Path(str(node_config.get("index-cache") or cache / INDEXES))
        pooled = json.loads(str(node_config.get("pooled", "{}")))
        folders = tuple(map(Path, pooled.get("folders", ())))
        rounds = {int(number): tuple(names) for number, names in pooled.get("rounds", {}).items()}
        number, seed = json.loads(str(node_config.get("canaries", "[0, 0]")))
        run = str(node_config.get("run", ""))
        max_rank = int(str(node_config.get("max-rank", 0)))
        return cls(name, folder, cache, scores, indexes, run, folders, rounds, (number, seed), max_rank)

    def load(self, training_round: int | None = None) -> Site:
        """Return the site's data, or that of the sites it pools.

        Args:
            training_round: The round that trains on it; None: all that is there is wanted.

        Raises:
            DataError: The data is malformed.
        """
        if not self.pooled:
            site = replace(load_site(self.folder), name=self.name)  # seeds come from the name it greets with
            return with_canaries(site, *self.canaries)
        names = self.pooled_in.get(training_round or 0)
        chosen = [folder for folder in self.pooled if not names or site_name(folder) in names]
        return pool_sites([with_canaries(load_site(folder), *self.canaries) for folder in chosen])


def _folder_of_partition(node_config: Mapping[str, object], config: Config) -> Path:
    if "partition-id" not in node_config:
        raise ConfigError('the node configuration names no data: expected site-folder="/path/to/site"')
    folders = chosen_folders(Path(config.data.sites), config.data.only, config.data.hold_out)
    partition = int(str(node_config["partition-id"]))
    if partition >= len(folders):
        raise ConfigError(f"there are {len(folders)} sites, but this is simulated client {partition + 1}")
    return folders[partition]
