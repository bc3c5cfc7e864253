"""Draws a value over the rounds as SVG: plain geometry and a template, quick enough for a page that is live."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from fedrag.languages.catalogue import ENGLISH, Words
from fedrag.reporting.round_log import Points

WIDTH, HEIGHT = 400, 210
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 12, 34  # what lies around the area of the lines
MOST_MARKS = 60  # more would hide the line


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis, in units of the drawing."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A point of the main line, in units of the drawing, with its text."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A value over the rounds, in units of the drawing.

    Attributes:
        x_ticks: Rounds.
        y_ticks: Values.
        line: The main line, as the points of a polyline.
        marks: Its points; none where they are too many.
        faint: Lines behind it, one per site.
        faint_marks: Points of sites that have one alone, which is no line.
    """

    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    line: str
    marks: tuple[Mark, ...]
    faint: tuple[str, ...]
    faint_marks: tuple[Mark, ...]


def curve_svg(points: Points, faint: Sequence[Points], rounds: int, words: Words = ENGLISH) -> str:
    """Return an `svg` element whose colours come from the page that it stands in.

    Args:
        points: The main line, at least one finite value.
        faint: Lines behind it, one per site; finite values.
        rounds: Rounds that the run will have: the width of the drawing.
        words: The language.
    """
    drawing = place_curve(points, faint, rounds, words)
    return _template().render(
        drawing=drawing, left=LEFT, right=WIDTH - RIGHT, width=WIDTH, height=HEIGHT, axis=words("curve.axis")
    )


def place_curve(points: Points, faint: Sequence[Points], rounds: int, words: Words = ENGLISH) -> Drawing:
    """Place a value over the rounds in a drawing; the arguments are those of `curve_svg`."""
    y_ticks = nice_ticks([y for line in (points, *faint) for _, y in line], 4)
    low, high, last = y_ticks[0], y_ticks[-1], max(rounds, points[-1][0], 2)

    def x_of(number: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (number - 1) / (last - 1)

    def y_of(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    def polyline(line: Points) -> str:
        return " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line)

    def marks(line: Points) -> tuple[Mark, ...]:
        told = [words("curve.point", n=x, value=words.number(f"{y:.4g}")) for x, y in line]
        return tuple(Mark(round(x_of(x), 1), round(y_of(y), 1), text) for (x, y), text in zip(line, told, strict=True))

    return Drawing(
        tuple(Tick(round(x_of(number), 1), f"{number}") for number in _round_ticks(last)),
        tuple(Tick(round(y_of(value), 1), words.number(f"{value:g}".replace("-", "−"))) for value in y_ticks),
        polyline(points),
        marks(points) if len(points) <= MOST_MARKS else (),
        tuple(polyline(line) for line in faint if len(line) > 1),
        tuple(mark for line in faint if len(line) == 1 for mark in marks(line)),
    )


def nice_ticks(values: Sequence[float], steps: int) -> list[float]:
    """Return round numbers from below the least value to above the greatest.

    >>> nice_ticks([1.97, 2.03], 4)
    [1.96, 1.98, 2.0, 2.02, 2.04]
    >>> nice_ticks([0.5], 4)
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    low, high = min(values), max(values)
    if low == high:
        low, high = low - (abs(low) or 1.0), high + (abs(high) or 1.0)
    rough = (high - low) / steps
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{step * number:.10g}") for number in range(first, last + 1)]


def _round_ticks(last: int) -> list[int]:
    """Return some of the rounds, at most nine, the first among them.

    >>> _round_ticks(3), _round_ticks(20)
    ([1, 2, 3], [1, 5, 10, 15, 20])
    """
    step = next(s for power in (1, 10, 100, 1000, 10_000) for s in (power, 2 * power, 5 * power) if last <= 8 * s)
    return [number for number in range(1, last + 1) if step == 1 or number == 1 or number % step == 0]


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("fedrag.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("curve.svg.jinja")
