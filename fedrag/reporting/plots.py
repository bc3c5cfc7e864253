"""The plots of what was measured and exchanged, each with a caption and its content in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedrag.evaluation.records import TITLES
from fedrag.languages.catalogue import ENGLISH, Words
from fedrag.reporting.arms import Line
from fedrag.reporting.curves import Plot
from fedrag.reporting.figures import bytes_figure, dots_figure
from fedrag.reporting.round_log import SiteTotals
from fedrag.reporting.verdict import percent


def dots(
    overall: Sequence[Line], by_site: Mapping[str, Sequence[Line]], metrics: Sequence[str], words: Words = ENGLISH
) -> list[Plot]:
    """Return a plot of all arms for each of some metrics: all questions, then site by site.

    Args:
        overall: A line for each metric.
        by_site: A line for each site, by the metric's name.
        metrics: Names of the metrics.
        words: The language.
    """
    plots = []
    for metric in metrics:
        whole = next(line for line in overall if line.label == TITLES[metric])
        lines = [Line(words("plot.all"), whole.n_questions, whole.means, whole.differences), *by_site[metric]]
        name = words(f"metric.{metric}")
        name = name[0].upper() + name[1:]
        told = words.unfilled("marks.semicolon").join(_told(line, words) for line in lines)
        alt = words("plot.dots_alt", metric=name, told=told)
        plots.append(Plot(words("plot.dots", metric=name), "", alt, dots_figure(lines, words)))
    return plots


def _told(line: Line, words: Words) -> str:
    means = [
        words("plot.mean", arm=words(f"arm.{arm}").lower(), percent=percent(value, words=words))
        for arm, value in line.means.items()
        if value is not None
    ]
    return words("plot.line", label=line.label, told=words.listed(means))


def bytes_by_site(totals: Mapping[str, SiteTotals], words: Words = ENGLISH) -> list[Plot]:
    """Return the plot of what each site received and sent; none where none was asked."""
    if not totals:
        return []
    told = words.unfilled("marks.semicolon").join(
        words("plot.bytes_line", site=name, received=words.size(t.received), sent=words.size(t.sent))
        for name, t in totals.items()
    )
    svg = bytes_figure({n: t.received for n, t in totals.items()}, {n: t.sent for n, t in totals.items()}, words)
    return [Plot(words("plot.bytes"), words("plot.bytes_caption"), words("plot.bytes_alt", told=told), svg)]
