"""A simulation, as a straight script: sites, rounds over a grid, export, baselines, final evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fedrag.components.base_models import required_models
from fedrag.components.crew import Crew
from fedrag.components.earlier_result import read_earlier_result, take_start
from fedrag.components.own_functions import own_facts, own_losses, own_rule, require_same_functions
from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components
from fedrag.config.scenario import Config
from fedrag.data.origins import count_origins
from fedrag.data.site_folder import chosen_folders
from fedrag.display import Display, Quiet
from fedrag.errors import ConfigError, FedragError, QuorumError, RunError, StorageError
from fedrag.federation.aggregation import Rule
from fedrag.files import storage_errors, write_json
from fedrag.passes.choose import planned_paths, reading_text
from fedrag.reporting.what_ran import resume_command
from fedrag.runs.facts import changed_models, collect_facts
from fedrag.runs.more_rounds import extend_run
from fedrag.runs.run_folder import RunFolder, alone_in_run, require_unused
from fedrag.simulation.clients import Clients, Parts
from fedrag.simulation.comparison import measure_arms
from fedrag.simulation.home_arm import Homes
from fedrag.simulation.poison import poisoned
from fedrag.simulation.preflight import check_scenario, training_sites, unused_negatives
from fedrag.simulation.rates import try_rates
from fedrag.simulation.train_arms import Arms
from fedrag.tracking.follow import following, require_trackers
from fedrag.training.losses import Losses

if TYPE_CHECKING:
    from fedrag.grids.ray_pool import RayPool


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
    require_trackers(config.tracking.to)
    parts = _parts(config, losses, rule, components, display)
    folders, facts = _prepare(config, parts)  # what is wrong is said before a folder is made
    if config.start_from:
        read_earlier_result(config, components)
    with _new_run(_with_absolute_paths(config).on_its_day(), Path(out) if out else None) as run:
        try:
            run.record_facts(facts)
            display.say(f"run folder: {run.path}")
            pool = nullcontext(ray_pool) if ray_pool else _own_pool(config, folders, ray_address)
            return _finish(run, folders, parts, pool)
        except FedragError:
            run.discard_if_unbegun()
            raise


def resume(
    path: Path | str,
    *,
    rounds: int | None = None,
    losses: Losses = Losses(),
    rule: Rule | None = None,
    components: Components = SHIPPED,
    display: Display = Quiet(),
    ray_address: str | None = None,
) -> RunFolder:
    """Go on with a run that was interrupted, at whatever moment; its configuration comes from its folder.

    Args:
        path: The run's folder.
        rounds: Rounds that it is to have in all, more than it had; it may be finished. None: as many as it had. See
            `fedrag.runs.more_rounds.extend_run`.
        losses: Loss functions, those that it began with.
        rule: The aggregation rule that it began with.
        components: What can be trained, by name.
        display: Shows lines and progress.
        ray_address: As in `simulate`.

    Raises:
        RunError: It is no run, another process works on it, or its data, models or threads are no longer what they
            were.
        ConfigError: It cannot have so many rounds.
    """
    run = RunFolder.open(Path(path))
    _check_ray(run.config, ray_address)
    with alone_in_run(run.path):
        require_same_functions(run)
        return _resume(run, _parts(run.config, losses, rule, components, display), ray_address, rounds)


def _parts(config: Config, losses: Losses, rule: Rule | None, components: Components, display: Display) -> Parts:
    """Collect what is a caller's own, or what the scenario names."""
    components = poisoned(components, config.simulation.poison)
    if not config.own.module:
        return Parts(losses, rule, components, display)
    if rule is not None or losses != Losses():
        raise ConfigError(f"own.module = {config.own.module!r} names losses and rule; leave out losses= and rule=")
    return Parts(own_losses(config.own, losses), own_rule(config.own), components, display)


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


def _resume(run: RunFolder, parts: Parts, ray_address: str | None, rounds: int | None) -> RunFolder:
    """Go on with a run that this process holds, if all that it depends on is what it was."""
    folders, facts = _prepare(run.config, parts)
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
    if run.facts.get("own", {}) != facts["own"]:
        raise RunError(_other_functions(run.path, run.facts.get("own", {}), facts["own"]))
    if rounds is not None:
        run, lines = extend_run(run, rounds)
        for line in lines:
            parts.display.say(line)
    return _finish(run, folders, parts, _own_pool(run.config, folders, ray_address))


def _check_ray(config: Config, address: str | None) -> None:
    """Refuse the address of a cluster that nothing would use, or that does not answer."""
    if address is None:
        return
    if config.simulation.grid != "ray":
        raise ConfigError(f'a Ray address needs simulation.grid = "ray"; this run has "{config.simulation.grid}"')
    from fedrag.grids.ray_pool import require_cluster  # Ray takes seconds to import

    require_cluster(address)


def _prepare(config: Config, parts: Parts) -> tuple[list[Path], dict[str, Any]]:
    """Return the folders of the sites that take part, and what the run depends on; refuse what cannot run."""
    folders = chosen_folders(Path(config.data.sites), config.data.only, config.data.hold_out)
    sites = training_sites(config, folders)
    check_scenario(config, sites, parts.components)
    models = required_models(config, parts.components)
    facts = collect_facts(config, models, folders) | {"own": parts.own_functions()} | own_facts(config.own)
    if origins := count_origins(question for site in sites for question in site.train):
        facts["origins"] = origins
    if "generator" in models:
        facts["passes"] = planned_paths(config, models["generator"], facts["threads"]).facts()
    return folders, facts


def _with_absolute_paths(config: Config) -> Config:
    """Name the data, and the run to start from, in full, so that a run can be resumed from any folder."""
    data = config.data.model_copy(update={"sites": str(Path(config.data.sites).resolve())})
    start = str(Path(config.start_from).resolve()) if config.start_from else ""
    return config.model_copy(update={"data": data, "start_from": start})


def _finish(
    run: RunFolder, folders: Sequence[Path], parts: Parts, pool: AbstractContextManager[RayPool | None]
) -> RunFolder:
    """Do what is left of a run: rounds, export, baselines, evaluation."""
    take_start(run, parts.components)
    torch.set_num_threads(run.facts["threads"])
    if "passes" in run.facts:
        parts.display.say(reading_text(run.facts["passes"]))
    try:
        with pool as opened, Crew(run.config.simulation.processes) as crew:
            canaries = (run.config.simulation.canaries, run.config.seed)
            threads = run.facts["threads"]
            clients = Clients(
                folders,
                run.path / "sites",
                opened,
                threads,
                canaries=canaries,
                crew=crew,
                ranks=run.config.simulation.ranks,
            )
            arms = Arms(run, clients, parts, training_sites(run.config, folders))
            for line in unused_negatives(run.config, arms.sites):
                parts.display.say(line)
            if run.config.evaluation.rates:
                try_rates(arms, "federated")
            with following(run, run.config.tracking.to, parts.display) as trackers:
                state = arms.train_federated(arms.config("federated"), run.path, trackers.catch_up)
                if run.config.federation.personalise:
                    Homes(arms, state).train()
                results = measure_arms(arms, state)
                write_json(run.path / "results.json", {"run": run.identity(), **results})
    except (KeyboardInterrupt, QuorumError, StorageError):
        if run.has_begun:
            parts.display.say(f"go on with: {resume_command(run)}")
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


def _first_difference(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                return str(key)
    return f"{before} then, {now} now"


def _other_functions(path: Path, before: dict[str, str], now: dict[str, str]) -> str:
    """Return the sentence on a run whose rule or losses are not those that it began with."""
    told = [", ".join(f"{what}={name}" for what, name in found.items()) or "fedrag's own" for found in (before, now)]
    return (
        f"{path}: cannot be resumed: it began with {told[0]}, not with {told[1]}; go on in Python with "
        "fedrag.resume(RUN, rule=..., losses=...) and the functions it began with"
    )
