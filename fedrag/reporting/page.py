"""Writes the report of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from fedrag.config.schedule import trained_components
from fedrag.diagnosis.kept import forgetting_text
from fedrag.evaluation.records import ARMS, TITLES, Measured, QuestionKey, Scores, read_seen, scores_by_question
from fedrag.files import write_text
from fedrag.languages.catalogue import ENGLISH, Words
from fedrag.languages.reader import page_languages
from fedrag.reporting import plots, round_log, what_ran
from fedrag.reporting.arms import BY_SITE, Line, cut_notes, measured_metrics, overall_lines, read_arms, site_lines
from fedrag.reporting.at_home import at_home
from fedrag.reporting.choice import rule
from fedrag.reporting.curves import curve_plots
from fedrag.reporting.examples import Texts, example_blocks, read_texts
from fedrag.reporting.fairness import seen_text, trainings, tried_rates, without_seen
from fedrag.reporting.html_page import fill_page
from fedrag.reporting.verdict import headline_metrics, verdict
from fedrag.reporting.wrong_answers import wrong_answers
from fedrag.runs.run_folder import RunFolder


def write_report(run: RunFolder | Path | str, out: Path | str | None = None) -> Path:
    """Write one self-contained HTML page about a run, finished or not, in the language of FEDRAG_LANG or in all.

    Args:
        run: The run or its folder.
        out: The file; by default `report.html` in the run folder.

    Returns:
        The file that was written.

    Raises:
        ConfigError: FEDRAG_LANG names no language of fedrag.
        RunError: It is no run folder, or what it holds is damaged.
        StorageError: The file cannot be written.
    """
    languages = page_languages()
    if not isinstance(run, RunFolder):
        run = RunFolder.open(Path(run))
    path = Path(out) if out is not None else run.path / "report.html"
    write_text(path, render(run, languages))
    return path


def render(run: RunFolder, languages: Sequence[Words] = (ENGLISH,)) -> str:
    """Return the page as HTML text, in each of some languages."""
    return fill_page("report.html.jinja", languages, partial(_content, run, _Found.of(run)))


@dataclass(frozen=True, slots=True)
class _Found:
    """What is read and reckoned once, whatever the languages."""

    records: round_log.Records
    arms: dict[str, list[Measured]]
    scores: dict[str, Scores]
    metrics: list[str]
    lines: list[Line]
    by_site: dict[str, list[Line]]
    seen: set[QuestionKey]
    unseen: list[Line]
    texts_of: Callable[[str], Texts]

    @classmethod
    def of(cls, run: RunFolder) -> _Found:
        arms = read_arms(run)
        scores: dict[str, Scores] = {arm: scores_by_question(measured) for arm, measured in arms.items()}
        metrics = measured_metrics(scores)
        seen, unseen = without_seen(scores, read_seen(run.path / "evaluation"))
        by_site = {metric: site_lines(scores, metric) for metric in metrics if metric in BY_SITE}
        texts_of = cache(partial(read_texts, run))
        return cls(run.rounds(), arms, scores, metrics, overall_lines(scores), by_site, seen, unseen, texts_of)


def _content(run: RunFolder, found: _Found, words: Words) -> dict[str, Any]:
    records, arms, scores = found.records, found.arms, found.scores
    trained = trained_components(run.config.federation)
    headlines = headline_metrics(trained, found.metrics)
    totals, name = round_log.site_totals(records), run.path.resolve().name
    notes = [*what_ran.notes(run, scores, words), *cut_notes(arms, run.config.rag, words), *_forgetting(run, words)]
    return {
        "title": words("report.title", name=name),
        "name": name,
        "warnings": what_ran.warnings(run, scores, words),
        "verdicts": verdicts(found.lines, headlines, words) or [what_ran.nothing_measured(run, words)],
        "summary": what_ran.summary(run, records, totals, words),
        "facts": what_ran.facts(run, records, totals, scores, words),
        "command": what_ran.command(run),
        "arms": {arm: words(f"arm.{arm}") for arm in ARMS if arm in arms},
        "notes": notes,
        "overall": found.lines,
        "trained": trainings(run, words),
        "tried": tried_rates(run, words),
        "seen": seen_text(scores, found.seen, words),
        "unseen": found.unseen,
        "home": at_home(run, scores, headlines, words),
        "by_site": {TITLES[metric]: lines for metric, lines in found.by_site.items()},
        "wrong": wrong_answers(run, words),
        "dots": plots.dots(found.lines, found.by_site, headlines, words),
        "curves": curve_plots(records, trained, run.config.federation.rounds, words),
        "totals": totals,
        "deployed": what_ran.is_deployed(run),
        "secure": run.config.federation.secure,
        "bytes": plots.bytes_by_site(totals, words),
        "left_out": round_log.left_out(records, words),
        "late": round_log.late(records, words),
        "cut_weights": round_log.cut_weights(records, words),
        "examples": example_blocks(arms, found.texts_of, words),
        "rule": rule("untouched" in arms, "exact_match" in found.metrics, words),
    }


def _forgetting(run: RunFolder, words: Words) -> list[str]:
    """Return what training did to the generator's loss on general text, where it was measured."""
    losses = run.results().get("forgetting") if (run.path / "results.json").is_file() else None
    return [words("forgetting.sentence", text=forgetting_text(losses, words))] if losses else []


def verdicts(lines: Sequence[Line], metrics: Sequence[str], words: Words = ENGLISH) -> list[str]:
    """Return what the numbers show, a sentence per metric; none where the federated models were not measured."""
    by_title = {line.label: line for line in lines}
    shown = [(metric, by_title[TITLES[metric]]) for metric in metrics]
    return [
        verdict(metric, federated, line.differences, line.n_questions, line.by_site, words)
        for metric, line in shown
        if (federated := line.means.get("federated")) is not None
    ]
