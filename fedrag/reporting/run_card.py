"""What a notebook shows of a run: what was found, the table of its arms and the picture of its figures."""

from __future__ import annotations

from functools import partial

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedrag.config.schedule import trained_components
from fedrag.evaluation.records import ARMS, scores_by_question
from fedrag.languages.catalogue import ENGLISH
from fedrag.languages.reader import wanted_language
from fedrag.reporting import plots, what_ran
from fedrag.reporting.arms import measured_metrics, overall_lines, read_arms, site_lines
from fedrag.reporting.page import verdicts
from fedrag.reporting.verdict import headline_metrics, percent
from fedrag.runs.run_folder import RunFolder


def render_card(run: RunFolder) -> str:
    """Return HTML that stands in a page with other things, in the language of FEDRAG_LANG or English.

    Raises:
        ConfigError: FEDRAG_LANG names no language of fedrag.
        RunError: What the run's folder holds is damaged.
    """
    words, arms = wanted_language() or ENGLISH, read_arms(run)
    scores = {arm: scores_by_question(measured) for arm, measured in arms.items()}
    lines = overall_lines(scores)
    headlines = headline_metrics(trained_components(run.config.federation), measured_metrics(scores))
    environment = Environment(
        loader=PackageLoader("fedrag.reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["percent"] = partial(percent, words=words)
    return environment.get_template("run_card.html.jinja").render(
        name=run.path.resolve().name,
        verdicts=verdicts(lines, headlines, words) or [what_ran.nothing_measured(run, words)],
        arms={arm: words(f"arm.{arm}") for arm in ARMS if arm in arms},
        lines=lines,
        words=words,
        dots=plots.dots(lines, {name: site_lines(scores, name) for name in headlines}, headlines, words),
    )
