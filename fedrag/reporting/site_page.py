"""A site's own page: how the models that it received do on its own questions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedrag import __version__
from fedrag.config.scenario import Config
from fedrag.config.schedule import schedule_text
from fedrag.evaluation.records import Measured, scores_by_question
from fedrag.files import write_text
from fedrag.reporting import what_ran
from fedrag.reporting.arms import ARMS, cut_notes, measured_metrics, overall_lines
from fedrag.reporting.choice import rule
from fedrag.reporting.examples import example_blocks, texts_of_site
from fedrag.reporting.page import fill, verdicts
from fedrag.reporting.verdict import headline_metrics
from fedrag.site.delivery import REPORT_FILE, Delivered
from fedrag.types import COMPONENTS, Component, Site


def write_site_report(
    folder: Path, site: Site, delivered: Delivered, split: str, arms: Mapping[str, Sequence[Measured]]
) -> Path:
    """Write the page next to the delivered models and return its path.

    Args:
        folder: The site's folder.
        site: Its data.
        delivered: The models that were measured.
        split: The questions that were measured: a split, or "all".
        arms: The records of `untouched` and `federated`.

    Raises:
        StorageError: It cannot be written.
    """
    path = delivered.folder / REPORT_FILE
    write_text(path, fill(_content(folder, site, delivered, split, arms)))
    return path


def _content(
    folder: Path, site: Site, delivered: Delivered, split: str, arms: Mapping[str, Sequence[Measured]]
) -> dict[str, Any]:
    config, trained = delivered.config, list(delivered.state)
    scores = {arm: scores_by_question(measured) for arm, measured in arms.items()}
    metrics, lines = measured_metrics(scores), overall_lines(scores)
    asked = f"{len(scores['federated']):,} {'' if split == 'all' else f'{split} '}questions of {site.name}"
    return {
        "name": f"{delivered.run} at {site.name}",
        "warnings": what_ran.random_models((config.models.generator, config.models.retriever)),
        "verdicts": verdicts(lines, headline_metrics(trained, metrics)),
        "summary": f"{asked}, measured at the site itself; this page and everything on it stays there",
        "facts": _facts(delivered.run, config, trained, asked),
        "command": f"fedrag client evaluate {shlex.quote(str(folder))} --split {split}",
        "arms": {arm: title for arm, title in ARMS.items() if arm in arms},
        "meanings": what_ran.MEANINGS,
        "notes": [what_ran.INTERVALS, *cut_notes(arms, config.rag)],
        "overall": lines,
        "examples": example_blocks(arms, lambda name: texts_of_site(site, split)),
        "rule": rule(compared=True, answers="exact_match" in metrics),
        # Only a run's page shows these: one site alone was measured, and the coordinator has the log of the rounds.
        **{
            "by_site": {},
            "dots": [],
            "curves": [],
            "totals": {},
            "bytes": [],
            "left_out": [],
            "late": [],
            "cut_weights": [],
            "secure": "",
        },
        **{"seen": "", "unseen": [], "trained": [], "tried": [], "home": None, "wrong": None},
    }


def _facts(run: str, config: Config, trained: Sequence[Component], asked: str) -> dict[str, str]:
    """Return what was measured, by name."""
    roles = {component: "trained" if component in trained else "not trained" for component in COMPONENTS}
    return {
        "Run": run,
        "Scenario": f"{config.name}, seed {config.seed}",
        **{
            component.capitalize(): f"{config.models.name_of(component)} ({roles[component]})"
            for component in COMPONENTS
        },
        "Rounds": f"{config.federation.rounds}, {schedule_text(config.federation)}",
        "Measured on": asked,
        "Versions": f"fedrag {__version__}",
    }
