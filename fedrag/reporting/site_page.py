"""A site's own page: how the models that it received do on its own questions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedrag import __version__
from fedrag.config.scenario import Config
from fedrag.config.schedule import schedule_text
from fedrag.evaluation.records import ARMS, Measured, scores_by_question
from fedrag.files import write_text
from fedrag.languages.catalogue import Words
from fedrag.languages.reader import page_languages
from fedrag.reporting import what_ran
from fedrag.reporting.arms import cut_notes, measured_metrics, overall_lines
from fedrag.reporting.choice import rule
from fedrag.reporting.examples import example_blocks, texts_of_site
from fedrag.reporting.html_page import fill_page
from fedrag.reporting.page import verdicts
from fedrag.reporting.verdict import headline_metrics
from fedrag.site.delivery import REPORT_FILE, Delivered
from fedrag.types import COMPONENTS, Component, Site


def write_site_report(
    folder: Path, site: Site, delivered: Delivered, split: str, arms: Mapping[str, Sequence[Measured]]
) -> Path:
    """Write the page next to the delivered models, in the language of FEDRAG_LANG or in all, and return its path.

    Args:
        folder: The site's folder.
        site: Its data.
        delivered: The models that were measured.
        split: The questions that were measured: a split, or "all".
        arms: The records of `untouched` and `federated`.

    Raises:
        ConfigError: FEDRAG_LANG names no language of fedrag.
        StorageError: It cannot be written.
    """
    path = delivered.folder / REPORT_FILE

    def content(words: Words) -> dict[str, Any]:
        return _content(folder, site, delivered, split, arms, words)

    write_text(path, fill_page("report.html.jinja", page_languages(), content))
    return path


def _content(
    folder: Path, site: Site, delivered: Delivered, split: str, arms: Mapping[str, Sequence[Measured]], words: Words
) -> dict[str, Any]:
    config, trained = delivered.config, list(delivered.state)
    scores = {arm: scores_by_question(measured) for arm, measured in arms.items()}
    metrics, lines = measured_metrics(scores), overall_lines(scores)
    asked = words("site.asked", questions=words(f"split.{split}", n=len(scores["federated"])), site=site.name)
    name = words("site.name", run=delivered.run, site=site.name)
    return {
        "title": words("report.title", name=name),
        "name": name,
        "warnings": what_ran.random_models((config.models.generator, config.models.retriever), words),
        "verdicts": verdicts(lines, headline_metrics(trained, metrics), words),
        "summary": words("site.summary", asked=asked),
        "facts": _facts(delivered.run, config, trained, asked, words),
        "command": f"fedrag client evaluate {shlex.quote(str(folder))} --split {split}",
        "arms": {arm: words(f"arm.{arm}") for arm in ARMS if arm in arms},
        "notes": [words("note.intervals"), *cut_notes(arms, config.rag, words)],
        "overall": lines,
        "examples": example_blocks(arms, lambda name: texts_of_site(site, split), words),
        "rule": rule(compared=True, answers="exact_match" in metrics, words=words),
        # Only a run's page shows these: one site alone was measured, and the coordinator has the log of the rounds.
        **{"by_site": {}, "dots": [], "curves": [], "totals": {}, "bytes": []},
        **{"left_out": [], "late": [], "cut_weights": []},
        **{"seen": "", "unseen": [], "trained": [], "tried": [], "home": None, "wrong": None},
    }


def _facts(run: str, config: Config, trained: Sequence[Component], asked: str, words: Words) -> dict[str, str]:
    """Return what was measured, by name."""
    roles = {name: words("fact.trained" if name in trained else "fact.not_trained") for name in COMPONENTS}
    return {
        words("fact.run"): run,
        words("fact.scenario"): words("fact.of_scenario", scenario=config.name, seed=f"{config.seed}"),
        **{
            words(f"fact.{name}"): words("fact.model", model=config.models.name_of(name), role=roles[name])
            for name in COMPONENTS
        },
        words("fact.rounds"): words.listed(
            [words.number(f"{config.federation.rounds:,}"), schedule_text(config.federation, words)]
        ),
        words("fact.measured"): asked,
        words("fact.versions"): f"fedrag {__version__}",
    }
