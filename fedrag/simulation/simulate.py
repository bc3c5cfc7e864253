"""A simulation, as a straight script: sites, rounds over a grid, export, baselines, final evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedrag.components.base_models import required_models
from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components
from fedrag.config.scenario import Config
from fedrag.data.questions import count_lines
from fedrag.data.site_folder import chosen_folders, load_site, site_name
from fedrag.display import Display, Quiet
from fedrag.errors import ConfigError, FedragError, QuorumError, RunError, StorageError
from fedrag.evaluation.evaluate import measure_sites
from fedrag.evaluation.records import Measured, measured_lines, summarise_by_site
from fedrag.federation.aggregation import Rule
from fedrag.federation.federate import federate
from fedrag.files import read_json, storage_errors, write_json, write_text
from fedrag.grids.in_process import InProcessGrid
from fedrag.passes.choose import planned_paths, reading_text
from fedrag.rag.indexing import shared_indexes
from fedrag.retrieval.index_cache import INDEXES
from fedrag.runs.facts import changed_models, collect_facts
from fedrag.runs.run_folder import RunFolder, alone_in_run, require_unused
from fedrag.simulation.baselines import train_local, train_pooled
from fedrag.simulation.preflight import check_scenario, held_out_folders, sites_that_train
from fedrag.site.client_app import make_client_app
from fedrag.site.site_paths import SCORES
from fedrag.training.losses import Losses
from fedrag.types import Site, State
from fedrag.weights.store import fedrag_home

if TYPE_CHECKING:
    from fedrag.grids.ray_pool import RayPool


@dataclass(frozen=True, slots=True)
class _Parts:
    """What of a simulation can be a caller's own.

    Attributes:
        losses: Loss functions.
        rule: An aggregation rule instead of the weighted mean.
        components: What can be trained, by name.
        display: Shows lines and progress.
    """

    losses: Losses
    rule: Rule | None
    components: Components
    display: Display


@dataclass(frozen=True, slots=True)
class _Clients:
    """The clients of a run.

    Attributes:
        folders: The sites that take part.
        caches: Folder of what sites are handed.
        pool: Client processes; None: all clients work in this one.
        threads: torch threads of a client process.
    """

    folders: Sequence[Path]
    caches: Path
    pool: RayPool | None
    threads: int


def simulate(
    config: Config | Path | str,
    *,
    out: Path | str | None = None,
    losses: Losses = Losses(),
    rule: Rule | None = None,
    components: Components = SHIPPED,
    display: Display = Quiet(),
    ray_address: str | None = None,
    ray_pool: RayPool | None = None,
) -> RunFolder:
    """Run a federation on this machine and measure what it did.

    Args:
        config: A scenario or the path of one.
        out: The run folder; by default the next free `runs/<scenario>-<n>`.
        losses: Loss functions, each of which can be one's own.
        rule: An aggregation rule of one's own: differences and weights in, one difference out.
        components: What can be trained, by name; one's own among them.
        display: Shows lines and progress.
        ray_address: A running Ray cluster to work in, such as "10.0.0.5:6379", instead of a Ray of its own. All
            its nodes need the sites' folders, the run folder, the models and this fedrag.
        ray_pool: Client processes that were started already; None: they are started and ended here.

    Returns:
        The finished run; its `results()` hold what was measured.

    Raises:
        FedragError: Something that the user can mend; a run that was begun can be resumed.
    """
    if not isinstance(config, Config):
        config = Config.from_file(Path(config))
    _check_ray(config, ray_address)
    folders, facts = _prepare(config, components)  # what is wrong is said before a folder is made
    with _new_run(_with_absolute_path(config).on_its_day(), Path(out) if out else None) as run:
        try:
            run.record_facts(facts)
            display.say(f"run folder: {run.path}")
            pool = nullcontext(ray_pool) if ray_pool else _own_pool(config, folders, ray_address)
            return _finish(run, folders, _Parts(losses, rule, components, display), pool)
        except FedragError:
            run.discard_if_unbegun()
            raise


def resume(
    path: Path | str,
    *,
    losses: Losses = Losses(),
    rule: Rule | None = None,
    components: Components = SHIPPED,
    display: Display = Quiet(),
    ray_address: str | None = None,
) -> RunFolder:
    """Go on with a run that was interrupted, at whatever moment; its configuration comes from its folder.

    Raises:
        RunError: It is no run, another process works on it, or its data, models or threads are no longer what they
            were.
    """
    run = RunFolder.open(Path(path))
    _check_ray(run.config, ray_address)
    with alone_in_run(run.path):
        return _resume(run, _Parts(losses, rule, components, display), ray_address)


@contextmanager
def _new_run(config: Config, path: Path | None) -> Iterator[RunFolder]:
    """Create a run folder in which this process works alone: at `path`, or at the next free number."""
    if path is not None:
        require_unused(path)
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        with alone_in_run(path):
            yield RunFolder.create(config, path)
        return
    run = RunFolder.create(config)
    with alone_in_run(run.path):
        yield run


def _resume(run: RunFolder, parts: _Parts, ray_address: str | None) -> RunFolder:
    """Go on with a run that this process holds, if all that it depends on is what it was."""
    components = parts.components
    folders, facts = _prepare(run.config, components)
    if not run.facts:
        run.record_facts(facts)
    changed = {"models": changed_models(run.facts.get("models", {}), facts["models"])}
    for key, what in (("data", "data"), ("threads", "number of threads"), ("dtype", "dtype")):
        if run.facts.get(key) != facts[key]:
            changed[what] = _first_difference(run.facts.get(key), facts[key])
    for what, difference in changed.items():
        if difference:
            raise RunError(
                f"{run.path}: cannot be resumed, its {what} changed: {difference}; put it back, or start a new run"
            )
    return _finish(run, folders, parts, _own_pool(run.config, folders, ray_address))


def _check_ray(config: Config, address: str | None) -> None:
    """Refuse the address of a cluster that nothing would use, or that does not answer."""
    if address is None:
        return
    if config.simulation.grid != "ray":
        raise ConfigError(f'a Ray address needs simulation.grid = "ray"; this run has "{config.simulation.grid}"')
    from fedrag.grids.ray_pool import require_cluster  # Ray takes seconds to import

    require_cluster(address)


def _prepare(config: Config, components: Components) -> tuple[list[Path], dict[str, Any]]:
    """Return the folders of the sites that take part, and what the run depends on; refuse what cannot run."""
    folders = chosen_folders(Path(config.data.sites), config.data.only, config.data.hold_out)
    check_scenario(config, [load_site(folder) for folder in folders], components)
    models = required_models(config, components)
    facts = collect_facts(config, models, folders)
    if "generator" in models:
        facts["passes"] = planned_paths(config, models["generator"], facts["threads"]).facts()
    return folders, facts


def _with_absolute_path(config: Config) -> Config:
    """Name the data in full, so that a run can be resumed from any folder."""
    data = config.data.model_copy(update={"sites": str(Path(config.data.sites).resolve())})
    return config.model_copy(update={"data": data})


def _finish(
    run: RunFolder, folders: Sequence[Path], parts: _Parts, pool: AbstractContextManager[RayPool | None]
) -> RunFolder:
    """Do what is left of a run: rounds, export, baselines, evaluation."""
    torch.set_num_threads(run.facts["threads"])
    if "passes" in run.facts:
        parts.display.say(reading_text(run.facts["passes"]))
    try:
        with pool as opened:
            clients = _Clients(folders, run.path / "sites", opened, run.facts["threads"])
            state = _federate(run, clients, parts)
            results = _evaluate(run, clients, state, parts)
        write_json(run.path / "results.json", {"run": run.identity(), **results})
    except (KeyboardInterrupt, QuorumError, StorageError):
        if run.has_begun:
            parts.display.say(f"go on with: fedrag simulate --resume {run.path}")
        raise
    return run


@contextmanager
def _own_pool(config: Config, folders: Sequence[Path], ray_address: str | None) -> Iterator[RayPool | None]:
    """Start client processes where the scenario asks for Ray, and end them."""
    if config.simulation.grid != "ray":
        yield None
        return
    from fedrag.grids.ray_pool import pool_for  # Ray starts processes and takes seconds to import

    with pool_for(config.simulation, len(folders), ray_address) as pool:
        yield pool


def _federate(run: RunFolder, clients: _Clients, parts: _Parts) -> State:
    return federate(
        run,
        lambda: _open_grid(clients, parts),
        components=parts.components,
        rule=parts.rule,
        display=parts.display,
    )


def _evaluate(run: RunFolder, clients: _Clients, state: State, parts: _Parts) -> dict[str, Any]:
    """Measure the federation and what the scenario sets beside it, each arm once."""
    evaluation, display = run.config.evaluation, parts.display
    if evaluation.split == "none":
        return {}
    split = evaluation.split
    sites = [load_site(folder) for folder in clients.folders]
    held_out = [load_site(folder) for folder in held_out_folders(run.config)]
    measured_sites = held_out if evaluation.sites == "held-out" else sites

    def measure(on: Sequence[Site], of: State) -> list[Measured]:
        return measure_sites(on, split, run.config, of, True, display, shared_indexes())

    def train(baseline: RunFolder, folder: Path) -> State:
        display.say(f"baseline: {baseline.path.name}")
        try:
            return _federate(baseline, replace(clients, folders=[folder]), replace(parts, rule=None))
        except QuorumError as error:  # a site that diverges alone must not cost the whole run
            display.say(f"{baseline.path.name} could not be trained and is measured untouched: {error}")
            return {}

    def local() -> list[Measured]:
        found: list[Measured] = []
        able = {site.name for site in sites_that_train(run.config, sites, parts.components)}
        for folder, site in zip(clients.folders, sites, strict=True):
            alone = train_local(run, folder, train) if site.name in able else {}
            found += measure(held_out if evaluation.sites == "held-out" else [site], alone)
        return found

    arms: dict[str, Callable[[], list[Measured]]] = {"federated": lambda: measure(measured_sites, state)}
    if evaluation.untouched:
        arms["untouched"] = lambda: measure(measured_sites, {})
    if "local" in evaluation.baselines:
        arms["local"] = local
    if "pooled" in evaluation.baselines:
        arms["pooled"] = lambda: measure(measured_sites, train_pooled(run, sites, train))
    measured = {name: _measure_once(run, name, arm) for name, arm in arms.items()}
    return {**measured, "question_lines": count_lines(measured_sites, split)}


def _measure_once(run: RunFolder, arm: str, measure: Callable[[], list[Measured]]) -> dict[str, Any]:
    """Measure one arm, unless an interrupted run has done so already."""
    path = run.path / "evaluation" / f"{arm}.json"
    if not path.is_file():
        measured = measure()
        write_text(path.with_suffix(".jsonl"), measured_lines(measured))
        write_json(path, summarise_by_site(measured))
    return read_json(path)


@contextmanager
def _open_grid(clients: _Clients, parts: _Parts) -> Iterator[Grid]:
    """Yield a grid with one client per site folder: in this process, or in those of the pool."""
    # A next run may ask for the same scores and indexes; where models are only read, they stay with this run.
    home, writable = fedrag_home(), os.access(fedrag_home(), os.W_OK)
    node_configs = [
        {
            "site-name": site_name(folder),
            "site-folder": str(folder.resolve()),
            "site-cache": str((clients.caches / site_name(folder)).resolve()),
            **({"score-cache": str(home / SCORES / site_name(folder))} if writable else {}),
            **({"index-cache": str(home / INDEXES)} if writable else {}),
        }
        for folder in clients.folders
    ]
    losses, components = parts.losses, parts.components  # alone: a display cannot be sent to another process
    if clients.pool is None:
        yield InProcessGrid(make_client_app(losses, parts.display.progress, components=components), node_configs)
        return
    from fedrag.grids.ray_actors import RayGrid  # it imports Ray, which not every run needs

    def client_app() -> ClientApp:
        return make_client_app(losses, components=components)

    with RayGrid(client_app, node_configs, clients.pool, threads=clients.threads) as grid:
        yield grid


def _first_difference(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                return str(key)
    return f"{before} then, {now} now"
