"""Evaluates a run on any sites, including those that took no part in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedrag.config.rag_settings import Search
from fedrag.config.scenario import Config
from fedrag.data.questions import count_lines
from fedrag.data.site_folder import load_sites
from fedrag.display import Display, Quiet
from fedrag.errors import DataError
from fedrag.evaluation.across_languages import over_other_languages
from fedrag.evaluation.measure import MeasuredSplit, measure_site
from fedrag.evaluation.records import Measured, summarise_by_site
from fedrag.models.resident import RoundModels
from fedrag.rag.indexing import shared_indexes
from fedrag.runs.facts import require_same_models
from fedrag.runs.run_folder import RunFolder
from fedrag.types import COMPONENTS, Site, State


def evaluate_run(
    path: Path | str,
    data: Path | str,
    *,
    split: MeasuredSplit = "test",
    base: bool = False,
    only_retrieval: bool = False,
    across_languages: bool = False,
    search: Search | None = None,
    display: Display = Quiet(),
) -> dict[str, Any]:
    """Measure a run's trained models, or the untouched ones, on the sites below a folder.

    Args:
        path: The run folder.
        data: A folder of site folders, or one site's folder.
        split: Questions to measure.
        base: Whether to measure the untouched models instead.
        only_retrieval: Whether to generate no answers.
        across_languages: Whether questions are searched for in the passages of sites of other languages that hold the
            same; then no answers are generated.
        search: How passages are ranked; None: as in the run.
        display: Shows lines and progress.

    Returns:
        `run`, `models`, `search`, `split`, `question_lines` (with those that recur), `overall` and `sites`; see
        `fedrag.evaluation.records`.

    Raises:
        RunError: The run is not finished, or damaged, or a base model is no longer the one it was trained with.
        DataError: The data is malformed, no site has a question in this split, or nothing crosses languages.
    """
    run = RunFolder.open(Path(path))
    state: State = {} if base else run.load_result()
    generates = run.config.evaluation.generate and not only_retrieval and not across_languages
    require_same_models(run, COMPONENTS if generates else ("retriever",))
    config = run.config.searching_by(search or run.config.rag.search)
    sites = over_other_languages(load_sites(Path(data))) if across_languages else load_sites(Path(data))
    measured = measure_sites(sites, split, config, state, generates, display, shared_indexes())
    if not measured:
        raise DataError(f"{data}: no site has a question in its {split} split; choose another with --split")
    identity: dict[str, Any] = {"run": run.identity(), "models": "untouched" if base else "trained", "split": split}
    identity["search"] = config.rag.search
    identity["question_lines"] = count_lines(sites, split)
    return {**identity, **summarise_by_site(measured)}


def measure_sites(
    sites: Sequence[Site],
    split: MeasuredSplit,
    config: Config,
    state: State,
    generate: bool,
    display: Display,
    indexes: Path | None = None,
) -> list[Measured]:
    """Measure one state on several sites; skip those without questions in the split, and say so.

    Args:
        sites: The sites.
        split: Questions to measure.
        config: The run's scenario.
        state: Tensors by component; a missing component is untouched.
        generate: Whether to generate answers, if the scenario does.
        display: Shows lines and progress.
        indexes: The folder of indexes; None: none are kept.
    """
    models = RoundModels(config, state)
    generator = models.generator if generate and config.evaluation.generate else None
    retriever = models.retriever if config.retrieves or generator is None else None
    measured: list[Measured] = []
    for done, site in enumerate(sites):
        display.progress("measuring sites", done, len(sites))
        found = measure_site(site, split, config, retriever, generator, display.progress, indexes)
        if not found:
            display.say(f"{site.name} has no {split} questions")
        measured += found
    display.progress("measuring sites", len(sites), len(sites))
    return measured
