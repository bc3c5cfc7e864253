"""Simulations and evaluations of sites that a program has in memory, or that lie in folders."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from fedrag.api.notebook import default_display
from fedrag.api.run import Run
from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components
from fedrag.config.scenario import Config
from fedrag.data.site_folder import hash_site
from fedrag.data.writing import write_sites
from fedrag.display import Display
from fedrag.errors import ConfigError, DataError
from fedrag.evaluation.compare import Comparison, compare_runs
from fedrag.evaluation.evaluate import evaluate_run
from fedrag.evaluation.measure import MeasuredSplit
from fedrag.federation.aggregation import Rule
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation import simulate as simulation
from fedrag.training.losses import Losses
from fedrag.types import Site
from fedrag.weights.store import fedrag_home

_HASH_LENGTH = 16


def simulate(
    config: Config | Mapping[str, Any] | Path | str,
    *,
    sites: Sequence[Site] | None = None,
    out: Path | str | None = None,
    losses: Losses = Losses(),
    rule: Rule | None = None,
    components: Components = SHIPPED,
    display: Display | None = None,
    ray_address: str | None = None,
) -> Run:
    """Run a federation on this machine and measure what it did.

    Args:
        config: A scenario, its sections as a dictionary, or the path of its file.
        sites: Sites in memory, in place of those that the scenario names. They are kept below `FEDRAG_HOME/data`, from
            where the run can be resumed.
        out: The run folder; by default the next free `runs/<scenario>-<n>`.
        losses: Loss functions, each of which can be one's own.
        rule: An aggregation rule of one's own: differences and weights in, one difference out.
        components: What can be trained, by name; one's own among them.
        display: Shows lines and progress; None: in a notebook its own, else nothing.
        ray_address: A running Ray cluster to work in, such as "10.0.0.5:6379", instead of a Ray of its own. All
            its nodes need the sites' folders, the run folder, the models and this fedrag.

    Returns:
        The finished run; its `results()` hold what was measured, and a notebook shows them.

    Raises:
        FedragError: Something that the user can mend; a run that was begun can be resumed.
    """
    scenario = _scenario(config, sites)
    run = simulation.simulate(
        scenario,
        out=out,
        losses=losses,
        rule=rule,
        components=components,
        display=display or default_display(),
        ray_address=ray_address,
    )
    return Run.of(run)


def resume(
    path: Path | str,
    *,
    rounds: int | None = None,
    losses: Losses = Losses(),
    rule: Rule | None = None,
    components: Components = SHIPPED,
    display: Display | None = None,
    ray_address: str | None = None,
) -> Run:
    """Go on with a run that was interrupted, at whatever moment; its configuration comes from its folder.

    Args:
        path: The run folder.
        rounds: Rounds in all, more than the run had; it may be finished. None: as many as it has.
        losses: The loss functions that the run began with.
        rule: The aggregation rule that it began with.
        components: What can be trained, by name.
        display: Shows lines and progress; None: in a notebook its own, else nothing.
        ray_address: A running Ray cluster to work in.

    Raises:
        RunError: It is no run, another process works on it, or its data, models or threads are no longer what they
            were.
    """
    shown = display or default_display()
    run = simulation.resume(
        path, rounds=rounds, losses=losses, rule=rule, components=components, display=shown, ray_address=ray_address
    )
    return Run.of(run)


def evaluate(
    run: RunFolder | Path | str,
    data: Sequence[Site] | Path | str,
    *,
    split: MeasuredSplit = "test",
    base: bool = False,
    only_retrieval: bool = False,
    display: Display | None = None,
) -> dict[str, Any]:
    """Measure a run's trained models, or the untouched ones, on any sites.

    Args:
        run: A finished run or its folder.
        data: Sites in memory, a folder of site folders, or one site's folder.
        split: Questions to measure.
        base: Whether to measure the untouched models instead.
        only_retrieval: Whether to generate no answers.
        display: Shows lines and progress; None: in a notebook its own, else nothing.

    Returns:
        `run`, `models`, `split`, `question_lines` (with those that recur), `overall` and `sites`; see
        `fedrag.evaluation.records`.

    Raises:
        RunError: The run is not finished, or damaged, or a base model is no longer the one it was trained with.
        DataError: The data is malformed, or no site has a question in this split.
    """
    path = run.path if isinstance(run, RunFolder) else run
    folder = data if isinstance(data, Path | str) else kept_sites(data)
    shown = display or default_display()
    return evaluate_run(path, folder, split=split, base=base, only_retrieval=only_retrieval, display=shown)


def compare(
    first: RunFolder | Path | str, *others: RunFolder | Path | str, seed: int = 0
) -> list[dict[str, Comparison]]:
    """Compare finished runs with a first one, over the questions that all of them measured.

    Args:
        first: The run that the others are compared with.
        others: One run or more.
        seed: Seed of the resampling that gives the intervals.

    Returns:
        For each other run, its comparison in every metric that both measured, by the metric's name.

    Raises:
        ConfigError: There is no other run.
        RunError: A run is not finished or measured nothing, or they have no question in common.
    """
    if not others:
        raise ConfigError("others: there is no run to compare with the first; name one or more")
    paths = [run.path if isinstance(run, RunFolder) else Path(run) for run in (first, *others)]
    compared, _ = compare_runs(*paths, seed=seed)
    return [{row.metric: row for row in one.rows} for one in compared if one.arm == "federated"]


def kept_sites(sites: Sequence[Site]) -> Path:
    """Return a folder with the files of sites, written once for the same content.

    Raises:
        DataError: There is no site, two have the same name, or what is in one cannot be written as its files.
    """
    if not sites:
        raise DataError("sites: holds no site")
    for number, site in enumerate(sites):
        if not isinstance(site, Site):
            raise DataError(f"sites[{number}]: expected a fedrag.Site, not {type(site).__name__}")
        if any(site.name == other.name for other in sites[:number]):
            raise DataError(f'sites: two are called "{site.name}"')
    root = fedrag_home() / "data"
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".new-") as scratch:
        written = Path(scratch) / "sites"
        write_sites(written, sites)
        content = "".join(f"{site.name} {hash_site(written / site.name)}\n" for site in sites)
        kept = root / sha256(content.encode()).hexdigest()[:_HASH_LENGTH]
        if not kept.is_dir():
            os.replace(written, kept)
    return kept


def _scenario(config: Config | Mapping[str, Any] | Path | str, sites: Sequence[Site] | None) -> Config:
    """Return the scenario, with the folder of sites that are in memory."""
    if isinstance(config, Mapping):
        data = {"sites": "sites in memory"} if sites is not None else {}
        return _with_sites(Config.from_dict({"name": "simulation", "data": data, **config}, "config"), sites)
    if not isinstance(config, Config | Path | str):
        raise ConfigError(f"config: expected a Config, a dictionary or the path of a file, not {type(config).__name__}")
    return _with_sites(config if isinstance(config, Config) else Config.from_file(Path(config)), sites)


def _with_sites(config: Config, sites: Sequence[Site] | None) -> Config:
    if sites is None:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"sites": str(kept_sites(sites))})})
