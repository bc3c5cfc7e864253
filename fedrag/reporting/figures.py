"""The plots of the page: SVG whose colours come from the page, so that they suit dark and light."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from io import StringIO
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fedrag.evaluation.records import ARMS
from fedrag.languages.catalogue import Words
from fedrag.reporting.arms import Line

# Stand-ins that matplotlib draws with; each becomes a colour of the page.
INK, MUTED, FAINT, ACCENT, PAPER = (f"#00000{n}" for n in range(1, 6))
_CSS = {INK: "var(--ink)", MUTED: "var(--muted)", FAINT: "var(--faint)", ACCENT: "var(--accent)", PAPER: "var(--paper)"}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's own type
    "text.parse_math": False,  # a site may be called "$"
    "font.size": 10.0,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
}
_WIDTH = 4.8  # inches; a column of the page
_MARKERS = {"untouched": "o", "local": "s", "personalised": "^", "pooled": "D"}


def dots_figure(lines: Sequence[Line], words: Words) -> str:
    """Draw the means of all arms in per cent, a row a line; the first line stands on top."""
    with _style(words):
        figure, axes = _figure(0.9 + 0.3 * len(lines))
        rows = range(len(lines))
        for row, line in zip(rows, lines, strict=True):
            values = [100 * value for value in line.means.values() if value is not None]
            axes.plot([min(values), max(values)], [row, row], color=FAINT, linewidth=1.2, zorder=1)
        for arm in (name for name in ARMS if any(name in line.means for line in lines)):
            points = [
                (100 * v, row) for row, line in zip(rows, lines, strict=True) if (v := line.means.get(arm)) is not None
            ]
            of_federation = arm == "federated"
            axes.plot(
                *_columns(points),
                linestyle="",
                marker=_MARKERS.get(arm, "o"),
                ms=7.5 if of_federation else 5.5,
                color=ACCENT if of_federation else PAPER,
                markeredgecolor=ACCENT if of_federation else INK,
                markeredgewidth=1.1,
                zorder=3 if of_federation else 2,
                label=words(f"arm.{arm}"),
                clip_on=False,
            )
        axes.set_yticks(list(rows), [line.label for line in lines])
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.set_xlabel(words("plot.percent"))
        axes.set_xlim(*_limits([100 * v for line in lines for v in line.means.values() if v is not None]))
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(_numbers(words))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0, pad=9)  # a mark may lie on the axis
        axes.spines["left"].set_visible(False)
        figure.legend(loc="outside upper left", ncols=5, handletextpad=0.2, columnspacing=1.2, fontsize=9.5)
        return _svg(figure)


def bytes_figure(received: Mapping[str, int], sent: Mapping[str, int], words: Words) -> str:
    """Draw how many bytes each site received and sent, in megabytes."""
    names = sorted(received)
    with _style(words):
        figure, axes = _figure(0.9 + 0.36 * len(names))
        rows = range(len(names))
        for values, offset, colour, label in (
            (received, -0.17, MUTED, words("plot.to_site")),
            (sent, 0.17, ACCENT, words("plot.to_server")),
        ):
            axes.barh([r + offset for r in rows], [values[n] / 1e6 for n in names], 0.3, color=colour, label=label)
        axes.set_yticks(list(rows), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel(words("plot.megabytes"))
        axes.xaxis.set_major_formatter(_numbers(words))
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper left", ncols=2, handlelength=1.0, fontsize=9.5)
        return _svg(figure)


def _style(words: Words) -> AbstractContextManager[None]:
    """Return the style; its salt gives the same run the same page, and each language on it ids of its own."""
    return rc_context(_STYLE | {"svg.hashsalt": f"fedrag {words.code}"})


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis in per cent, a little beyond the values, so that small differences stay small.

    >>> _limits([0.0, 0.0]), _limits([40.0, 60.0])
    ((0.0, 10.0), (38.0, 62.0))
    """
    margin = max(0.1 * (max(values) - min(values)), 0.5 * (10 - (max(values) - min(values))))
    low = min(max(0.0, min(values) - margin), 90.0)
    return low, max(min(100.0, max(values) + margin), low + 10)


def _numbers(words: Words) -> FuncFormatter:
    return FuncFormatter(lambda value, _: words.number(f"{value:g}"))


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _svg(figure: Figure) -> str:
    """Return the figure as an `svg` element that stands in HTML."""
    file = StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the browser has the font
        figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator")))
    text = file.getvalue()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(
        r'(<svg [^>]*?)width="[^"]*"', r"\1", re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", text, count=1), count=1
    )
    text = re.sub(r'font: ([\d.]+)px [^;"]*', r"font-size: \1px", text)
    for stand_in, colour in _CSS.items():
        text = text.replace(stand_in, colour)
    return text.replace("<svg ", '<svg aria-hidden="true" ', 1)
