"""A simulation, as a straight script: sites, rounds over a grid, export, baselines, final evaluation."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from flwr.serverapp import Grid

from fedrag import __version__
from fedrag.config import Config, trained_components
from fedrag.data.site_folder import chosen_folders, hash_site, load_site
from fedrag.data.writing import write_site
from fedrag.display import Display, Quiet
from fedrag.errors import ConfigError, RunError
from fedrag.evaluation.evaluate import measure_sites
from fedrag.evaluation.measure import Measured, summarise_by_site
from fedrag.federation.aggregation import Rule
from fedrag.federation.rounds import run_rounds
from fedrag.grids.in_process import InProcessGrid
from fedrag.models.export import export_models
from fedrag.models.resident import best_device, cpu_count, generator_dtype, initial_state
from fedrag.models.store import find_model
from fedrag.runs import RunFolder, read_json, write_json, write_text
from fedrag.site.app import make_client_app
from fedrag.training.losses import Losses
from fedrag.types import Site, State


def simulate(
    config: Config | Path | str,
    *,
    out: Path | str | None = None,
    losses: Losses = Losses(),
    rule: Rule | None = None,
    display: Display = Quiet(),
) -> RunFolder:
    """Run a federation on this machine and measure what it did.

    Args:
        config: A scenario or the path of one.
        out: The run folder; by default the next free `runs/<scenario>-<n>`.
        losses: Loss functions, each of which can be one's own.
        rule: An aggregation rule of one's own: differences and weights in, one difference out.
        display: Shows lines and progress.

    Returns:
        The finished run; its `results()` hold what was measured.

    Raises:
        FedragError: Something that the user can mend; a run that was begun can be resumed.
    """
    if not isinstance(config, Config):
        config = Config.from_file(Path(config))
    folders = chosen_folders(Path(config.data.sites), config.data.only, config.data.hold_out)
    facts = collect_facts(config, folders)  # what is wrong with data or models is said before a folder is made
    run = RunFolder.create(config, Path(out) if out else None)
    run.record_facts(facts)
    display.say(f"run folder: {run.path}")
    return _finish(run, folders, losses, rule, display)


def resume(
    path: Path | str,
    *,
    losses: Losses = Losses(),
    rule: Rule | None = None,
    display: Display = Quiet(),
) -> RunFolder:
    """Go on with a run that was interrupted, at whatever moment; its configuration comes from its folder.

    Raises:
        RunError: It is no run, or its data, models or threads are no longer what they were.
    """
    run = RunFolder.open(Path(path))
    config = run.config
    folders = chosen_folders(Path(config.data.sites), config.data.only, config.data.hold_out)
    facts = collect_facts(config, folders)
    if not run.facts:
        run.record_facts(facts)
    for key, what in (
        ("data", "data"),
        ("models", "models"),
        ("threads", "number of threads"),
        ("dtype", "dtype"),
    ):
        if run.facts.get(key) != facts[key]:
            raise RunError(
                f"{run.path}: cannot be resumed, its {what} changed: "
                f"{_first_difference(run.facts.get(key), facts[key])}"
            )
    return _finish(run, folders, losses, rule, display)


def _finish(run: RunFolder, folders: Sequence[Path], losses: Losses, rule: Rule | None, display: Display) -> RunFolder:
    config = run.config
    torch.set_num_threads(run.facts["threads"])
    state = _federate(run, folders, losses, rule, display)
    sites = [load_site(folder) for folder in folders]
    arms: dict[str, Callable[[], list[Measured]]] = {}
    if config.evaluation.split != "none":
        arms["federated"] = lambda: _measure(sites, config, state, display)
        if config.evaluation.untouched:
            arms["untouched"] = lambda: _measure(sites, config, {}, display)
        if "local" in config.evaluation.baselines:
            arms["local"] = lambda: _local_baseline(run, folders, sites, losses, display)
        if "pooled" in config.evaluation.baselines:
            arms["pooled"] = lambda: _pooled_baseline(run, sites, losses, display)
    results = {name: _measure_once(run, name, measure) for name, measure in arms.items()}
    write_json(run.path / "results.json", {"run": run.identity(), **results})
    return run


def _federate(run: RunFolder, folders: Sequence[Path], losses: Losses, rule: Rule | None, display: Display) -> State:
    """Run the rounds that are left and export the result."""
    config = run.config
    components = trained_components(config.federation)
    with open_grid(run, folders, losses, display) as grid:
        state = run_rounds(grid, config, run, lambda: initial_state(config, components), rule=rule, display=display)
    if not (run.path / "final" / "state.safetensors").is_file():
        export_models(config, state, run.path / "final")
        run.save_result(state)
    return state


@contextmanager
def open_grid(run: RunFolder, folders: Sequence[Path], losses: Losses, display: Display) -> Iterator[Grid]:
    """Give the grid that the scenario names, with one client per site folder."""
    simulation = run.config.simulation
    node_configs = [
        {
            "site-name": folder.resolve().name,
            "site-folder": str(folder.resolve()),
            "site-cache": str((run.path / "sites" / folder.resolve().name).resolve()),
        }
        for folder in folders
    ]
    if simulation.grid == "in-process":
        yield InProcessGrid(make_client_app(losses, display.progress), node_configs)
        return
    from fedrag.grids.ray_actors import RayGrid  # Ray starts processes and takes seconds to import

    with RayGrid(
        lambda: make_client_app(losses),
        node_configs,
        actors=simulation.actors,
        cpus_per_actor=simulation.cpus_per_actor,
        gpus_per_actor=simulation.gpus_per_actor,
        threads=run.facts["threads"],
    ) as grid:
        yield grid


def _measure(sites: Sequence[Site], config: Config, state: State, display: Display) -> list[Measured]:
    split = config.evaluation.split
    assert split != "none"
    return measure_sites(sites, split, config, state, True, display)


def _measure_once(run: RunFolder, arm: str, measure: Callable[[], list[Measured]]) -> dict[str, Any]:
    """Measure one arm, unless an interrupted run has done so already."""
    path = run.path / "evaluation" / f"{arm}.json"
    if not path.is_file():
        measured = measure()
        lines = "".join(json.dumps(item.to_json(), ensure_ascii=False) + "\n" for item in measured)
        write_text(path.with_suffix(".jsonl"), lines)
        write_json(path, summarise_by_site(measured))
    return read_json(path)


def _local_baseline(
    run: RunFolder, folders: Sequence[Path], sites: Sequence[Site], losses: Losses, display: Display
) -> list[Measured]:
    """Train each site alone for as many passes as the federation gave it; measure it on its own questions."""
    measured: list[Measured] = []
    for folder, site in zip(folders, sites, strict=True):
        state: State = {}
        if site.train:
            display.say(f"baseline: {site.name} alone")
            state = _baseline_run(run, f"local-{site.name}", folder, losses, display)
        measured += _measure([site], run.config, state, display)
    return measured


def _pooled_baseline(run: RunFolder, sites: Sequence[Site], losses: Losses, display: Display) -> list[Measured]:
    """Train on all data in one place for as many passes; measure at the sites."""
    folder = run.path / "baselines" / "pooled-data" / "pooled"
    if not folder.exists():
        write_site(folder, pool_sites(sites))
    display.say("baseline: all data pooled")
    state = _baseline_run(run, "pooled", folder, losses, display)
    return _measure(sites, run.config, state, display)


def _baseline_run(run: RunFolder, name: str, folder: Path, losses: Losses, display: Display) -> State:
    """Run the same rounds with one site: the same code, the same passes, resumable in the same way."""
    path = run.path / "baselines" / name
    federation = run.config.federation.model_copy(update={"fraction": 1.0, "deliver": False, "min_sites": 1})
    config = run.config.model_copy(update={"federation": federation})
    if not (path / "scenario.toml").is_file():
        RunFolder.create(config, path).record_facts(run.facts)
    return _federate(RunFolder.open(path), [folder], losses, None, display)


def pool_sites(sites: Sequence[Site]) -> Site:
    """Return all sites' data as one; ids are prefixed with the site's name."""

    def questions(site: Site, split: str) -> list[Any]:
        return [
            type(question)(
                f"{site.name}/{question.id}",
                question.question,
                question.answers,
                tuple(f"{site.name}/{passage_id}" for passage_id in question.passage_ids),
            )
            for question in getattr(site, split)
        ]

    passages = [
        type(passage)(f"{site.name}/{passage.id}", passage.text, passage.title)
        for site in sites
        for passage in site.passages
    ]
    splits = {split: tuple(q for s in sites for q in questions(s, split)) for split in ("train", "validation", "test")}
    return Site("pooled", tuple(passages), **splits)


def collect_facts(config: Config, folders: Sequence[Path]) -> dict[str, Any]:
    """Return what a run depends on: versions, hashes of models and data, threads, number format.

    Raises:
        ModelError: A model is not fetched, or is of the wrong kind.
        DataError: A site's folder cannot be read.
    """
    for folder in folders:
        load_site(folder)
    models = {"retriever": find_model(config.models.retriever, "encoder")}
    if needs_generator(config):
        models["generator"] = find_model(config.models.generator)
        if models["generator"].kind == "encoder":
            raise ConfigError(f"models.generator = {config.models.generator!r} is an encoder, no language model")
    libraries = ("torch", "transformers", "peft", "sentence-transformers", "flwr", "faiss-cpu")
    threads = config.simulation.threads or (
        config.simulation.cpus_per_actor if config.simulation.grid == "ray" else cpu_count()
    )
    return {
        "fedrag": __version__,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in libraries}},
        "models": {c: {"name": m.name, "tensors_sha256": m.tensors_sha256} for c, m in sorted(models.items())},
        "data": {folder.resolve().name: hash_site(folder) for folder in folders},
        "threads": threads,
        "dtype": str(generator_dtype(config.models.generator_dtype, best_device())).removeprefix("torch."),
        "machine": {"processor": platform.machine(), "device": best_device()},
    }


def needs_generator(config: Config) -> bool:
    """Return whether a scenario trains, scores with, or generates with the generator."""
    trains = "generator" in trained_components(config.federation)
    generates = config.evaluation.split != "none" and config.evaluation.generate
    scores = "retriever" in trained_components(config.federation) and config.retriever.uses_lsr
    return trains or generates or scores


def _first_difference(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                return str(key)
    return f"{before} then, {now} now"
