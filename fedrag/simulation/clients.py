"""The clients of a simulation: what each is told of its site, and the grid that reaches them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedrag.components.crew import ALONE, Crew
from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components
from fedrag.data.pooling import POOLED
from fedrag.data.site_folder import site_name
from fedrag.display import Display, Quiet
from fedrag.federation.aggregation import Rule
from fedrag.grids.in_process import InProcessGrid
from fedrag.retrieval.index_cache import INDEXES
from fedrag.site.client_app import make_client_app
from fedrag.site.secure_round import simulated_agreement_key
from fedrag.site.site_paths import SCORES
from fedrag.training.losses import Losses
from fedrag.weights.store import fedrag_home

if TYPE_CHECKING:
    from fedrag.grids.ray_pool import RayPool

Rounds = Mapping[int, Sequence[str]]
"""The names of the sites that train, by round."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What of a simulation can be a caller's own.

    Attributes:
        losses: Loss functions.
        rule: An aggregation rule instead of the weighted mean.
        components: What can be trained, by name.
        display: Shows lines and progress.
    """

    losses: Losses = field(default_factory=Losses)
    rule: Rule | None = None
    components: Components = field(default_factory=lambda: SHIPPED)
    display: Display = Quiet()

    def own_functions(self) -> dict[str, str]:
        """Return the names of the functions that are not fedrag's, by what they are."""
        usual, given = asdict(Losses()), asdict(self.losses)
        own = {f"losses.{name}": function for name, function in given.items() if function is not usual[name]}
        own |= {"rule": self.rule} if self.rule else {}
        return {what: _name_of(function) for what, function in own.items()}


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients of a run.

    Attributes:
        folders: The sites that take part.
        caches: Folder of what sites are handed.
        pool: Client processes; None: all clients work in this one.
        threads: torch threads of a client process.
        pooled_in: Whether one client holds the data of all sites, and the names of those whose data a round trains
            on; None: each site has a client.
        canaries: How many each site has, and their seed.
        crew: The processes that train a client together, where they are not Ray's.
        ranks: Ranks of the sites that train smaller adapters, by name.
    """

    folders: Sequence[Path]
    caches: Path
    pool: RayPool | None
    threads: int
    pooled_in: Rounds | None = None
    canaries: tuple[int, int] = (0, 0)
    crew: Crew = ALONE
    ranks: Mapping[str, int] = field(default_factory=dict)

    @contextmanager
    def open_grid(self, parts: Parts) -> Iterator[Grid]:
        """Yield a grid with these clients: in this process, or in those of the pool."""
        configs = [self._pooled()] if self.pooled_in is not None else [self._site(folder) for folder in self.folders]
        losses, components = parts.losses, parts.components  # alone: a display cannot be sent to another process
        if self.pool is None:
            progress = parts.display.progress
            yield InProcessGrid(make_client_app(losses, progress, components=components, crew=self.crew), configs)
            return
        from fedrag.grids.ray_actors import RayGrid  # it imports Ray, which not every run needs

        def client_app() -> ClientApp:
            return make_client_app(losses, components=components)

        with RayGrid(client_app, configs, self.pool, threads=self.threads) as grid:
            yield grid

    def _site(self, folder: Path) -> dict[str, str]:
        return self._node_config(site_name(folder), folder)

    def _pooled(self) -> dict[str, str]:
        """Return the node configuration of one client with the data of all sites."""
        everyone = {site_name(folder) for folder in self.folders}
        some = {number: names for number, names in (self.pooled_in or {}).items() if set(names) != everyone}
        pooled = {"folders": [str(folder.resolve()) for folder in self.folders], "rounds": some}
        return {**self._node_config(POOLED, self.folders[0]), "pooled": json.dumps(pooled)}

    def _node_config(self, name: str, folder: Path) -> dict[str, str]:
        # A next run may ask for the same scores and indexes; where models are only read, they stay with this run.
        home, writable = fedrag_home(), os.access(fedrag_home(), os.W_OK)
        return {
            "site-name": name,
            "site-folder": str(folder.resolve()),
            "site-cache": str((self.caches / name).resolve()),
            "canaries": json.dumps(self.canaries),
            "max-rank": str(self.ranks.get(name, 0)),
            "agreement-key": simulated_agreement_key(name),
            **({"score-cache": str(home / SCORES / name)} if writable else {}),
            **({"index-cache": str(home / INDEXES)} if writable else {}),
        }


def _name_of(function: Any) -> str:
    """Return the module and name of a function, or of the class of a callable object."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
