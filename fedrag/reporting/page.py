"""Writes the report of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedrag.config.schedule import trained_components
from fedrag.diagnosis.kept import forgetting_text
from fedrag.evaluation.records import TITLES, read_seen, scores_by_question
from fedrag.files import write_text
from fedrag.reporting import plots, round_log, what_ran
from fedrag.reporting.arms import ARMS, BY_SITE, Line, cut_notes, measured_metrics, overall_lines, read_arms, site_lines
from fedrag.reporting.at_home import at_home
from fedrag.reporting.choice import rule
from fedrag.reporting.curves import curve_plots
from fedrag.reporting.examples import example_blocks, read_texts
from fedrag.reporting.fairness import trainings, tried_rates, without_seen
from fedrag.reporting.verdict import headline_metrics, percent, verdict
from fedrag.reporting.wrong_answers import wrong_answers
from fedrag.runs.run_folder import RunFolder
from fedrag.text import size_text


def write_report(run: RunFolder | Path | str, out: Path | str | None = None) -> Path:
    """Write one self-contained HTML page about a run, finished or not.

    Args:
        run: The run or its folder.
        out: The file; by default `report.html` in the run folder.

    Returns:
        The file that was written.

    Raises:
        RunError: It is no run folder, or what it holds is damaged.
        StorageError: The file cannot be written.
    """
    if not isinstance(run, RunFolder):
        run = RunFolder.open(Path(run))
    path = Path(out) if out is not None else run.path / "report.html"
    write_text(path, render(run))
    return path


def render(run: RunFolder) -> str:
    """Return the page as HTML text."""
    return fill(_content(run))


def fill(content: Mapping[str, Any]) -> str:
    """Return the page of a report as HTML text.

    Args:
        content: A value for every name that the template uses.
    """
    return filled("page.html.jinja", content)


def filled(template: str, content: Mapping[str, Any]) -> str:
    """Return a page as HTML text.

    Args:
        template: File name of the template.
        content: A value for every name that it uses.
    """
    environment = Environment(
        loader=PackageLoader("fedrag.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["size"] = size_text
    environment.filters["duration"] = what_ran.duration
    return environment.get_template(template).render(content)


def _content(run: RunFolder) -> dict[str, Any]:
    records, arms = run.rounds(), read_arms(run)
    scores = {arm: scores_by_question(measured) for arm, measured in arms.items()}
    metrics = measured_metrics(scores)
    trained = trained_components(run.config.federation)
    headlines = headline_metrics(trained, metrics)
    seen, unseen = without_seen(scores, read_seen(run.path / "evaluation"))
    totals, lines = round_log.site_totals(records), overall_lines(scores)
    return {
        "name": run.path.resolve().name,
        "warnings": what_ran.warnings(run, scores),
        "verdicts": verdicts(lines, headlines) or [what_ran.nothing_measured(run)],
        "summary": what_ran.summary(run, records, totals),
        "facts": what_ran.facts(run, records, totals, scores),
        "command": what_ran.command(run),
        "arms": {arm: title for arm, title in ARMS.items() if arm in arms},
        "meanings": what_ran.MEANINGS,
        "notes": [*what_ran.notes(run, scores), *cut_notes(arms, run.config.rag), *_forgetting(run)],
        "overall": lines,
        "trained": trainings(run),
        "tried": tried_rates(run),
        "seen": seen,
        "unseen": unseen,
        "home": at_home(run, scores, headlines),
        "by_site": {TITLES[metric]: site_lines(scores, metric) for metric in metrics if metric in BY_SITE},
        "wrong": wrong_answers(run),
        "dots": plots.dots(scores, lines, headlines),
        "curves": curve_plots(records, trained, run.config.federation.rounds),
        "totals": totals,
        "deployed": what_ran.is_deployed(run),
        "secure": what_ran.hidden_by_secure_sum(run),
        "bytes": plots.bytes_by_site(totals),
        "left_out": round_log.left_out(records),
        "late": round_log.late(records),
        "cut_weights": round_log.cut_weights(records),
        "examples": example_blocks(arms, partial(read_texts, run)),
        "rule": rule("untouched" in arms, "exact_match" in metrics),
    }


def _forgetting(run: RunFolder) -> list[str]:
    """Return what training did to the generator's loss on general text, where it was measured."""
    losses = run.results().get("forgetting") if (run.path / "results.json").is_file() else None
    return [f"{forgetting_text(losses)}."] if losses else []


def verdicts(lines: Sequence[Line], metrics: Sequence[str]) -> list[str]:
    """Return what the numbers show, a sentence per metric; none where the federated models were not measured."""
    by_title = {line.label: line for line in lines}
    shown = [(metric, by_title[TITLES[metric]]) for metric in metrics]
    return [
        verdict(metric, federated, line.differences, line.n_questions, line.by_site)
        for metric, line in shown
        if (federated := line.means.get("federated")) is not None
    ]
