"""What is drawn over the rounds, in the report and on the coordinator's console: values, words and picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedrag.languages.catalogue import ENGLISH, Words
from fedrag.reporting import round_log
from fedrag.reporting.curve_svg import curve_svg
from fedrag.reporting.round_log import Points, Records
from fedrag.types import Component


@dataclass(frozen=True, slots=True)
class Curve:
    """A value over the rounds.

    Attributes:
        title: What it is.
        caption: What the reader must know of it.
        points: The main line: finite values by round.
        faint: Lines behind it, one per site.
    """

    title: str
    caption: str
    points: Points
    faint: Sequence[Points] = ()


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture with its caption and what it shows in words."""

    title: str
    caption: str
    alt: str
    svg: str


def curve_plots(records: Records, components: Sequence[Component], rounds: int, words: Words = ENGLISH) -> list[Plot]:
    """Return the pictures of all curves.

    Args:
        records: The rounds so far.
        components: The components that are trained.
        rounds: Rounds that the run will have.
        words: The language.
    """
    plots = []
    for curve in curves(records, components, words):
        values = [words("curve.point", n=n, value=words.number(f"{value:.3g}")) for n, value in curve.points]
        svg = curve_svg(curve.points, curve.faint, rounds, words)
        alt = words("curve.alt", title=curve.title, values=words.listed(values))
        plots.append(Plot(curve.title, curve.caption, alt, svg))
    return plots


def curves(records: Records, components: Sequence[Component], words: Words = ENGLISH) -> list[Curve]:
    """Return what there is of each component, from its loss to its learning rate."""
    found = []
    for component in components:
        joint = round_log.joint_losses(records, component)
        found.append(_loss(component, round_log.site_losses(records, component), joint, words))
        for key, title, caption in _logged_by_the_server(component, words):
            found.append(Curve(title, caption, _finite(round_log.curve(records, key, component))))
    return [curve for curve in found if curve.points]


def _loss(component: Component, losses: Mapping[str, Points], joint: Points, words: Words) -> Curve:
    title, mean = words("curve.loss", component=words.component(component)), _finite(round_log.mean_curve(losses))
    if joint:
        return Curve(title, words("curve.loss_hidden"), _finite(joint))
    if len(losses) == 1:
        return Curve(title, words("curve.loss_one"), mean)
    faint = [finite for points in losses.values() if (finite := _finite(points))]
    return Curve(title, words("curve.loss_mean"), mean, faint)


def _logged_by_the_server(component: Component, words: Words) -> list[tuple[str, str, str]]:
    """Return key, title and caption of each value that a line of the log holds by component."""
    name = words.component(component)
    known = f"curve.questions.{component}"
    return [
        (
            "validation",
            words("curve.validation", component=name),
            words(known if words.has(known) else "curve.questions.own"),
        ),
        ("update_norm", words("curve.update", component=name), words("curve.update_norm")),
        ("aggregation_error", words("curve.error", component=name), words("curve.error_meaning")),
        ("learning_rate", words("curve.rate", component=name), words("curve.rate_meaning")),
    ]


def _finite(points: Points) -> Points:
    return [(number, value) for number, value in points if math.isfinite(value)]
