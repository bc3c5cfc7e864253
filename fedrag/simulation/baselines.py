"""What federation is compared with: each site alone, and all data in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fedrag.data.writing import write_site
from fedrag.runs.run_folder import RunFolder
from fedrag.types import Passage, Question, Site, Split, State

Train = Callable[[RunFolder, Path], State]
"""Runs all rounds of a run with one site's folder, and returns the result."""


def train_local(run: RunFolder, folder: Path, train: Train) -> State:
    """Train one site alone for as many passes over its data as the federation made."""
    return train(_baseline_folder(run, f"local-{folder.name}"), folder)


def train_pooled(run: RunFolder, sites: Sequence[Site], train: Train) -> State:
    """Train on all sites' data in one place for as many passes."""
    folder = run.path / "baselines" / "pooled-data" / "pooled"
    if not folder.exists():
        write_site(folder, pool_sites(sites))
    return train(_baseline_folder(run, "pooled"), folder)


def _baseline_folder(run: RunFolder, name: str) -> RunFolder:
    """Return the run folder of a baseline: the same rounds, asked of one site, resumable in the same way."""
    path = run.path / "baselines" / name
    if (path / "run.json").is_file():
        return RunFolder.open(path)
    federation = run.config.federation.model_copy(update={"fraction": 1.0, "deliver": False, "min_sites": 1})
    baseline = RunFolder.create(run.config.model_copy(update={"federation": federation}), path, exist_ok=True)
    baseline.record_facts(run.facts)
    return baseline


def pool_sites(sites: Sequence[Site]) -> Site:
    """Return all sites' data as one site's; ids are prefixed with the site's name."""
    return Site(
        "pooled",
        tuple(_prefixed(site, passage) for site in sites for passage in site.passages),
        _questions(sites, "train"),
        _questions(sites, "validation"),
        _questions(sites, "test"),
    )


def _prefixed(site: Site, passage: Passage) -> Passage:
    return replace(passage, id=f"{site.name}/{passage.id}")


def _questions(sites: Sequence[Site], split: Split) -> tuple[Question, ...]:
    return tuple(
        replace(
            question,
            id=f"{site.name}/{question.id}",
            passage_ids=tuple(f"{site.name}/{passage_id}" for passage_id in question.passage_ids),
            hard_negative_ids=tuple(f"{site.name}/{passage_id}" for passage_id in question.hard_negative_ids),
        )
        for site in sites
        for question in site.split(split)
    )
