"""The plots of the page, each with a caption and its content in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedrag.evaluation.records import TITLES, Scores
from fedrag.reporting import round_log
from fedrag.reporting.arms import ARMS, Line, site_lines
from fedrag.reporting.figures import bytes_figure, curve_figure, dots_figure
from fedrag.reporting.verdict import METRIC_WORDS, percent
from fedrag.text import size_text
from fedrag.types import COMPONENTS

_VALIDATION = {
    "generator": "mean log-probability of an answer token; higher is better",
    "retriever": "mean reciprocal rank; higher is better",
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure with its caption and what it shows in words."""

    title: str
    caption: str
    alt: str
    svg: str


def dots(scores: Mapping[str, Scores], overall: Sequence[Line], metrics: Sequence[str]) -> list[Plot]:
    """Return a plot of all arms for each of some metrics: all questions, then site by site."""
    plots = []
    for metric in metrics:
        whole = next(line for line in overall if line.label == TITLES[metric])
        lines = [Line("all", whole.n_questions, whole.means, whole.differences), *site_lines(scores, metric)]
        word = METRIC_WORDS[metric]
        title = word[0].upper() + word[1:]
        told = "; ".join(f"{line.label}: {_told(line)}" for line in lines)
        plots.append(Plot(f"{title} by site", "", f"{title} in per cent. {told}.", dots_figure(lines)))
    return plots


def _told(line: Line) -> str:
    return ", ".join(f"{ARMS[arm].lower()} {percent(value)}" for arm, value in line.means.items() if value is not None)


def curves(records: round_log.Records) -> list[Plot]:
    """Return the plots over the rounds of each component: loss, validation, size of the update, aggregation error."""
    plots = []
    for component in COMPONENTS:
        losses = round_log.site_losses(records, component)
        if losses:
            mean = round_log.mean_curve(losses)
            caption = "Mean over the sites; each site faint." if len(losses) > 1 else "One site."
            plots.append(
                _curve_plot(f"Training loss of the {component}", caption, mean, losses if len(losses) > 1 else {})
            )
        for key, title, caption in (
            (
                "validation",
                f"Validation of the {component}",
                f"All sites' validation questions: {_VALIDATION[component]}.",
            ),
            ("update_norm", f"Size of the {component}'s update", "L2 norm of what was added to the weights."),
            (
                "aggregation_error",
                f"Aggregation error of the {component}",
                "How far the mean of the LoRA factors is from the mean of their products, relative to the latter.",
            ),
        ):
            points = round_log.curve(records, key, component)
            if points:
                plots.append(_curve_plot(title, caption, points))
    return plots


def _curve_plot(title: str, caption: str, mean: round_log.Points, faint: Mapping[str, round_log.Points] = {}) -> Plot:
    told = ", ".join(f"round {number}: {value:.3g}" for number, value in mean)
    return Plot(title, caption, f"{title} by round. {told}.", curve_figure(mean, faint))


def bytes_by_site(totals: Mapping[str, round_log.SiteTotals]) -> list[Plot]:
    """Return the plot of what each site received and sent; none where none was asked."""
    if not totals:
        return []
    told = "; ".join(f"{n}: {size_text(t.received)} received, {size_text(t.sent)} sent" for n, t in totals.items())
    svg = bytes_figure({n: t.received for n, t in totals.items()}, {n: t.sent for n, t in totals.items()})
    caption = "Weights in training messages; greeting, validation and delivery come on top."
    return [Plot("Bytes by site", caption, f"Bytes by site. {told}.", svg)]
