"""Audits a run: what its models remember of the data that they were trained on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fedrag.config.scenario import Config
from fedrag.data.canaries import Canaries, make_canaries
from fedrag.data.planted_canaries import read_canaries
from fedrag.data.site_folder import chosen_folders, hash_site, load_site
from fedrag.display import Display, Quiet
from fedrag.dp.ledger import LEDGER_FILE, PrivacyLedger
from fedrag.errors import RunError
from fedrag.files import write_json
from fedrag.privacy.audited import NO_CANARIES, Audited, audited_questions
from fedrag.privacy.kept_steps import KeptSteps
from fedrag.privacy.membership import separation, share_interval
from fedrag.privacy.one_run import DELTA, bound_epsilon
from fedrag.privacy.reconstruction import can_be_attacked, reconstruct
from fedrag.privacy.regurgitation import answered_by_heart, passages_by_heart
from fedrag.privacy.scores import generator_gains, retriever_gains
from fedrag.rag.indexing import shared_indexes
from fedrag.runs.facts import require_same_models
from fedrag.runs.run_folder import RunFolder
from fedrag.types import Component, Question, Site, State

FOLDER = "audit"
RESULT = "audit.json"
KEPT = "kept"

Gains = dict[Question, float]
Kinds = Callable[[Audited], tuple[Sequence[Question], Sequence[Question]]]
"""Returns of a site's questions those that are told from others, and the others."""
T = TypeVar("T")


def audit_run(
    path: Path | str, data: Path | str | None = None, *, attack: bool = False, display: Display = Quiet()
) -> dict[str, Any]:
    """Measure what a run's models remember, and keep the result in its folder.

    Args:
        path: The run folder.
        data: The folder of the sites that took part, where they lie elsewhere now; None: where the run found them.
        attack: Whether words of questions are looked for in an update, too, which takes minutes.
        display: Shows lines and progress.

    Returns:
        What `audit_of` returns, with `run`, and with `changed`, the names of the sites whose data is not what the run
        trained on: theirs may be taken for the wrong kind, and their canaries are left out.

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
    folders = chosen_folders(folder, run.config.data.only, run.config.data.hold_out)
    sites = [load_site(each) for each in folders]
    recorded = run.facts.get("data", {})
    now = {site.name: hash_site(each) for each, site in zip(folders, sites, strict=True)}
    changed = sorted(name for name, digest in now.items() if recorded.get(name, digest) != digest)
    canaries = {
        site.name: _canaries_of(run, each, site) if recorded.get(site.name) == now[site.name] else NO_CANARIES
        for each, site in zip(folders, sites, strict=True)
    }
    out = run.path / FOLDER
    found = audit_of(sites, run.config, state, canaries, display=display, kept=out / KEPT, attack=attack)
    add_allowed(found, [run.path / "sites" / site.name / LEDGER_FILE for site in sites])
    result = {"run": run.identity(), **({"changed": changed} if changed else {}), **found}
    write_json(out / RESULT, result)
    shutil.rmtree(out / KEPT, ignore_errors=True)
    return result


def add_allowed(found: dict[str, Any], ledgers: Iterable[Path]) -> None:
    """Put the epsilon that ledgers allow beside the one that canaries show.

    Args:
        found: What `audit_of` returned; unchanged without canaries or a ledger.
        ledgers: Files of the sites; some may be missing. The largest epsilon counts.
    """
    kept = [PrivacyLedger(path) for path in ledgers if path.is_file()]
    if "canaries" in found and kept:
        found["canaries"]["allowed"] = max(ledger.epsilon(DELTA) for ledger in kept)


def _canaries_of(run: RunFolder, folder: Path, site: Site) -> Canaries:
    """Return the canaries that a site had in a run: those of the scenario, which its passages decide, or its own."""
    if (number := run.config.simulation.canaries) and site.train:
        return make_canaries(site, number, run.config.seed)
    return read_canaries(folder)


def audit_of(
    sites: Sequence[Site],
    config: Config,
    state: State,
    canaries: Mapping[str, Canaries] | None = None,
    *,
    display: Display = Quiet(),
    indexes: Path | None = None,
    kept: Path | None = None,
    attack: bool = False,
) -> dict[str, Any]:
    """Measure what models remember of sites.

    Args:
        sites: Sites that trained them, with the questions that were held back.
        config: The scenario.
        state: What was trained: tensors by component.
        canaries: Those of each site that has some, by its name.
        display: Shows lines and progress.
        indexes: The folder of indexes; None: the one that all runs of this machine's user share.
        kept: A folder that keeps what was computed until the end, so that an audit that was stopped goes on; who asked
            for it removes it.
        attack: Whether words of questions are looked for in an update.

    Returns:
        `membership` of each trained component, the fields of `Separation`; where a generator was trained, `answers` and
        `passages` that it knows by heart, trained and untouched; where there are canaries, `canaries`: how many, their
        `membership`, and in `epsilon` the fields of `EpsilonBound`, of each component (`add_allowed` adds the epsilon
        that ledgers allow); with an attack,
        `reconstruction`: what `reconstruct` returns. Numbers alone: no question, answer or passage.

    Raises:
        DataError: No site has both kinds of questions.
    """
    audited = audited_questions(sites, canaries)
    steps = KeptSteps.under(kept, state, config, audited) if kept else KeptSteps()
    gains = _gains(audited, config, state, indexes or shared_indexes(), steps, display)
    found: dict[str, Any] = {"membership": _membership(audited, gains, lambda one: (one.members, one.others))}
    if "generator" in state:
        found["answers"] = _answers(audited, config, state, steps, display)
        found["passages"] = _passages(audited, config, state, steps)
    if any(one.canaries for one in audited):
        found["canaries"] = _canaries(audited, gains)
    if attack and can_be_attacked(config, state):
        found["reconstruction"] = reconstruct(sites, config, {}, steps, display=display)
    return found


def _gains(
    audited: Sequence[Audited], config: Config, state: State, indexes: Path | None, steps: KeptSteps, display: Display
) -> dict[Component, list[Gains]]:
    """Return what training added to the score of each question, by component, for each site."""
    measures: dict[Component, Callable[[Audited], Gains]] = {
        "generator": lambda one: generator_gains(one, config, state, indexes),
        "retriever": lambda one: retriever_gains(one, config, state),
    }
    gains: dict[Component, list[Gains]] = {component: [] for component in measures if component in state}
    for done, one in enumerate(audited):
        display.progress("auditing sites", done, len(audited))
        for component in gains:
            measured = steps.of(f"{component}-{done}", partial(_listed, one, measures[component]))
            gains[component].append({q: gain for q, gain in zip(one.scored, measured, strict=True) if gain is not None})
    display.progress("auditing sites", len(audited), len(audited))
    return gains


def _listed(one: Audited, measure: Callable[[Audited], Mapping[Question, T]]) -> list[T | None]:
    """Return what was measured of each scored question, in their order."""
    measured = measure(one)
    return [measured.get(question) for question in one.scored]


def _membership(
    audited: Sequence[Audited], gains: Mapping[Component, Sequence[Gains]], kinds: Kinds
) -> dict[Component, dict[str, Any]]:
    """Return how far two kinds of questions can be told apart, by component; those of one site alone are no pair."""
    found = {}
    for component, scores in gains.items():
        ours, theirs = _scores(audited, scores, kinds)
        if ours and theirs:
            found[component] = separation(ours, theirs).to_json()
    return found


def _scores(audited: Sequence[Audited], gains: Sequence[Gains], kinds: Kinds) -> tuple[list[float], list[float]]:
    """Return the scores of two kinds of questions, site by site: another site may have asked the same."""
    ours, theirs = [], []
    for one, scores in zip(audited, gains, strict=True):
        members, others = kinds(one)
        ours += [scores[question] for question in members if question in scores]
        theirs += [scores[question] for question in others if question in scores]
    return ours, theirs


def _canaries(audited: Sequence[Audited], gains: Mapping[Component, Sequence[Gains]]) -> dict[str, Any]:
    def kinds(one: Audited) -> tuple[Sequence[Question], Sequence[Question]]:
        return one.canaries.planted, one.canaries.held_back

    return {
        "planted": sum(len(one.canaries.planted) for one in audited),
        "held_back": sum(len(one.canaries.held_back) for one in audited),
        "membership": _membership(audited, gains, kinds),
        "epsilon": {
            component: bound_epsilon(*_scores(audited, scores, kinds)).to_json() for component, scores in gains.items()
        },
    }


def _answers(
    audited: Sequence[Audited], config: Config, state: State, steps: KeptSteps, display: Display
) -> dict[str, Any]:
    display.say("asking every question without passages")
    models: dict[str, State] = {"trained": state, "untouched": {}}
    right: dict[str, dict[str, list[bool]]] = {kind: {model: [] for model in models} for kind in ("members", "others")}
    for done, one in enumerate(audited):
        for model, used in models.items():
            by_heart = partial(answered_by_heart, config=config, state=used)
            told = steps.of(f"answers-{model}-{done}", partial(_listed, one, by_heart))
            of = {question: flag for question, flag in zip(one.scored, told, strict=True) if flag is not None}
            right["members"][model] += [of[question] for question in one.members if question in of]
            right["others"][model] += [of[question] for question in one.others if question in of]
    return {kind: {model: _share(flags) for model, flags in told_of.items()} for kind, told_of in right.items()}


def _passages(audited: Sequence[Audited], config: Config, state: State, steps: KeptSteps) -> dict[str, Any]:
    passages = [passage for one in audited for passage in one.site.passages]
    models: dict[str, State] = {"trained": state, "untouched": {}}
    counts = {
        model: steps.of(f"passages-{model}", partial(passages_by_heart, passages, config, used))
        for model, used in models.items()
    }
    return {model: _share([True] * hits + [False] * (tried - hits)) for model, (hits, tried) in counts.items()}


def _share(flags: Sequence[bool]) -> Mapping[str, float]:
    """Return how many of how many, with the exact 95 % interval of the share."""
    low, high = share_interval(sum(flags), len(flags)) if flags else (0.0, 1.0)
    return {"hits": sum(flags), "n": len(flags), "low": low, "high": high}
