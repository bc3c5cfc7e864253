"""Diagnoses a run: why its models answer wrong, on any sites, and what to change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedrag.config.scenario import Config
from fedrag.data.site_folder import load_sites
from fedrag.diagnosis.advice import advise
from fedrag.diagnosis.diagnose_site import diagnose_site
from fedrag.diagnosis.diagnosed import Diagnosed
from fedrag.diagnosis.forgetting import measure_forgetting
from fedrag.diagnosis.kept import ANSWERS, FOLDER
from fedrag.diagnosis.scenario_lines import Situation
from fedrag.diagnosis.tally import means_of, tally_of
from fedrag.display import Display, Quiet
from fedrag.errors import DataError, RunError
from fedrag.evaluation.measure import MeasuredSplit
from fedrag.files import write_json
from fedrag.models.resident import RoundModels
from fedrag.rag.indexing import shared_indexes
from fedrag.runs.facts import require_same_models
from fedrag.runs.run_folder import RunFolder
from fedrag.types import Site, State


def diagnose_run(
    path: Path | str,
    data: Path | str | None = None,
    *,
    base: bool = False,
    split: MeasuredSplit = "validation",
    display: Display = Quiet(),
) -> dict[str, Any]:
    """Find out why a run's models, or the untouched ones, answer wrong.

    A diagnosis of the run's own sites is kept in its folder, where the report finds it.

    Args:
        path: The run folder.
        data: A folder of site folders, or one site's folder; None: the sites that took part.
        base: Whether to diagnose the untouched models.
        split: Questions to diagnose. What is changed by the advice is chosen by them, so the test questions stay
            unseen unless they are asked for.
        display: Shows lines and progress.

    Returns:
        What `diagnosis_of` returns, with `run`.

    Raises:
        RunError: The run is not finished, or damaged, or a base model is no longer the one it was trained with.
        DataError: The data is malformed, or no site has a question with an answer in this split.
    """
    run = RunFolder.open(Path(path))
    trained = run.load_result()
    require_same_models(run)
    sites = _sites(run, data)
    answers = run.path / FOLDER / ANSWERS
    found = diagnosis_of(sites, split, run.config, trained, answers, base=base, display=display)
    result = {"run": run.identity(), **found}
    if data is None:
        write_json(run.path / FOLDER / f"{result['models']}.json", result)
    return result


def diagnosis_of(
    sites: Sequence[Site],
    split: MeasuredSplit,
    config: Config,
    trained: State,
    answers: Path,
    *,
    base: bool = False,
    display: Display = Quiet(),
    indexes: Path | None = None,
) -> dict[str, Any]:
    """Diagnose models on sites.

    Args:
        sites: The sites.
        split: Questions to diagnose.
        config: The scenario.
        trained: What was trained: tensors by component.
        answers: The folder of cached answers.
        base: Whether to diagnose the untouched models.
        display: Shows lines and progress.
        indexes: The folder of indexes; None: the one that all runs of this machine's user share.

    Returns:
        `models` ("trained" or "untouched"), `split`, `overall` and `sites` (each `counts`, `answer_in_context` and
        `given`), `advice`, `forgetting` where a trained generator is diagnosed, and `questions`, one by one.

    Raises:
        DataError: No site has a question with an answer in this split.
    """
    models = RoundModels(config, {} if base else trained)
    diagnosed: list[Diagnosed] = []
    for done, site in enumerate(sites):
        display.progress("diagnosing sites", done, len(sites))
        diagnosed += diagnose_site(site, split, config, models, answers, display.progress, indexes or shared_indexes())
    display.progress("diagnosing sites", len(sites), len(sites))
    if not diagnosed:
        raise DataError(
            f"no question of the {split} split has an answer, and a diagnosis looks at answers; choose another --split"
        )
    situation = Situation.of(
        config,
        base=base,
        has_labels=any(question.passage_ids for site in sites for question in site.train),
        answer_needs=max(one.answer_needs for one in diagnosed),
    )
    forgetting = {} if base else measure_forgetting(config, trained)
    names = sorted({one.site for one in diagnosed})
    return {
        "models": "untouched" if base else "trained",
        "split": split,
        "overall": _summary(diagnosed),
        "sites": {name: _summary([one for one in diagnosed if one.site == name]) for name in names},
        "advice": advise(tally_of(diagnosed), situation).to_json(),
        **({"forgetting": forgetting} if forgetting else {}),
        "questions": [one.to_json() for one in diagnosed],
    }


def _summary(diagnosed: Sequence[Diagnosed]) -> dict[str, Any]:
    tally = tally_of(diagnosed)
    rate = tally.in_context / tally.questions
    return {"counts": tally.to_json(), "answer_in_context": rate, "given": means_of(diagnosed)}


def _sites(run: RunFolder, data: Path | str | None) -> list[Site]:
    """Return the sites to diagnose: those named, or those that took part."""
    if data is not None:
        return load_sites(Path(data))
    own = Path(run.config.data.sites)
    if not own.is_dir():
        raise RunError(f"{run.path}: the sites that took part are not here ({own}); name others with --data SITES")
    return load_sites(own, run.config.data.only, run.config.data.hold_out)
