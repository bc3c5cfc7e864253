"""The plots of what was measured and exchanged, each with a caption and its content in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedrag.evaluation.records import TITLES, Scores
from fedrag.reporting.arms import ARMS, Line, site_lines
from fedrag.reporting.curves import Plot
from fedrag.reporting.figures import bytes_figure, dots_figure
from fedrag.reporting.round_log import SiteTotals
from fedrag.reporting.verdict import METRIC_WORDS, percent
from fedrag.text import size_text


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


def bytes_by_site(totals: Mapping[str, SiteTotals]) -> list[Plot]:
    """Return the plot of what each site received and sent; none where none was asked."""
    if not totals:
        return []
    told = "; ".join(f"{n}: {size_text(t.received)} received, {size_text(t.sent)} sent" for n, t in totals.items())
    svg = bytes_figure({n: t.received for n, t in totals.items()}, {n: t.sent for n, t in totals.items()})
    caption = "Weights in training messages; greeting, validation and delivery come on top."
    return [Plot("Bytes by site", caption, f"Bytes by site. {told}.", svg)]
