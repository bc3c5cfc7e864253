"""Audits a run: what its models remember of the data that they were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedrag.config.scenario import Config
from fedrag.data.site_folder import load_sites
from fedrag.display import Display, Quiet
from fedrag.errors import RunError
from fedrag.files import write_json
from fedrag.privacy.audited import Audited, audited_questions
from fedrag.privacy.membership import separation, share_interval
from fedrag.privacy.regurgitation import answered_by_heart, passages_by_heart
from fedrag.privacy.scores import generator_gains, retriever_gains
from fedrag.rag.indexing import shared_indexes
from fedrag.runs.facts import require_same_models
from fedrag.runs.run_folder import RunFolder
from fedrag.types import Question, Site, State

FOLDER = "audit"
RESULT = "audit.json"


def audit_run(path: Path | str, data: Path | str | None = None, *, display: Display = Quiet()) -> dict[str, Any]:
    """Measure what a run's models remember, and keep the result in its folder.

    Args:
        path: The run folder.
        data: The folder of the sites that took part, where they lie elsewhere now; None: where the run found them.
        display: Shows lines and progress.

    Returns:
        What `audit_of` returns, with `run`.

    Raises:
        RunError: The run is not finished, or damaged, or a base model is no longer the one it was trained with.
        DataError: The data is malformed, or no site has both kinds of questions.
    """
    run = RunFolder.open(Path(path))
    state = run.load_result()
    require_same_models(run)
    folder = Path(data) if data is not None else Path(run.config.data.sites)
    if not folder.is_dir():
        raise RunError(f"{run.path}: the sites that took part are not here ({folder}); name them with --data SITES")
    sites = load_sites(folder, run.config.data.only, run.config.data.hold_out)
    result = {"run": run.identity(), **audit_of(sites, run.config, state, display=display)}
    write_json(run.path / FOLDER / RESULT, result)
    return result


def audit_of(
    sites: Sequence[Site], config: Config, state: State, *, display: Display = Quiet(), indexes: Path | None = None
) -> dict[str, Any]:
    """Measure what models remember of sites.

    Args:
        sites: Sites that trained them, with the questions that were held back.
        config: The scenario.
        state: What was trained: tensors by component.
        display: Shows lines and progress.
        indexes: The folder of indexes; None: the one that all runs of this machine's user share.

    Returns:
        `membership` of each trained component, the fields of `Separation`; where a generator was trained, `answers` and
        `passages` that it knows by heart, trained and untouched. Numbers alone: no question, answer or passage.

    Raises:
        DataError: No site has both kinds of questions.
    """
    audited = audited_questions(sites)
    ours: dict[str, list[float]] = {component: [] for component in ("generator", "retriever")}
    theirs: dict[str, list[float]] = {component: [] for component in ours}
    for done, one in enumerate(audited):
        display.progress("auditing sites", done, len(audited))
        gains: dict[str, dict[Question, float]] = {}
        if "generator" in state:
            gains["generator"] = generator_gains(one, config, state, indexes or shared_indexes())
        if "retriever" in state:
            gains["retriever"] = retriever_gains(one, config, state)
        for component, scores in gains.items():  # by site: another may have asked the same
            ours[component] += [scores[question] for question in one.members if question in scores]
            theirs[component] += [scores[question] for question in one.others if question in scores]
    display.progress("auditing sites", len(audited), len(audited))
    found: dict[str, Any] = {
        "membership": {
            component: separation(ours[component], theirs[component]).to_json()
            for component in ours
            if ours[component] and theirs[component]
        }
    }
    if "generator" in state:
        found |= {"answers": _answers(audited, config, state, display), "passages": _passages(audited, config, state)}
    return found


def _answers(audited: Sequence[Audited], config: Config, state: State, display: Display) -> dict[str, Any]:
    display.say("asking every question without passages")
    models: dict[str, State] = {"trained": state, "untouched": {}}
    right: dict[str, dict[str, list[bool]]] = {kind: {model: [] for model in models} for kind in ("members", "others")}
    for one in audited:
        for model, used in models.items():
            told = answered_by_heart(one, config, used)
            right["members"][model] += [told[question] for question in one.members if question in told]
            right["others"][model] += [told[question] for question in one.others if question in told]
    return {kind: {model: _share(flags) for model, flags in told_of.items()} for kind, told_of in right.items()}


def _passages(audited: Sequence[Audited], config: Config, state: State) -> dict[str, Any]:
    passages = [passage for one in audited for passage in one.site.passages]
    counts = {
        "trained": passages_by_heart(passages, config, state),
        "untouched": passages_by_heart(passages, config, {}),
    }
    return {model: _share([True] * hits + [False] * (tried - hits)) for model, (hits, tried) in counts.items()}


def _share(flags: Sequence[bool]) -> Mapping[str, float]:
    """Return how many of how many, with the exact 95 % interval of the share."""
    low, high = share_interval(sum(flags), len(flags)) if flags else (0.0, 1.0)
    return {"hits": sum(flags), "n": len(flags), "low": low, "high": high}
