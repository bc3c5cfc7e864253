"""What is drawn over the rounds, in the report and on the coordinator's console: values, words and picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedrag.components.shipped import SHIPPED
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


def curve_plots(records: Records, components: Sequence[Component], rounds: int) -> list[Plot]:
    """Return the pictures of all curves.

    Args:
        records: The rounds so far.
        components: The components that are trained.
        rounds: Rounds that the run will have.
    """
    plots = []
    for curve in curves(records, components):
        values = ", ".join(f"round {number}: {value:.3g}" for number, value in curve.points)
        svg = curve_svg(curve.points, curve.faint, rounds)
        plots.append(Plot(curve.title, curve.caption, f"{curve.title} by round. {values}.", svg))
    return plots


def curves(records: Records, components: Sequence[Component]) -> list[Curve]:
    """Return what there is of each component, from its loss to its learning rate."""
    found = []
    for component in components:
        joint = round_log.joint_losses(records, component)
        found.append(_loss(component, round_log.site_losses(records, component), joint))
        for key, title, caption in _logged_by_the_server(component):
            found.append(Curve(title, caption, _finite(round_log.curve(records, key, component))))
    return [curve for curve in found if curve.points]


def _loss(component: Component, losses: Mapping[str, Points], joint: Points) -> Curve:
    title, mean = f"Training loss of the {component}", _finite(round_log.mean_curve(losses))
    if joint:
        return Curve(title, "Mean over the sites; that of each is hidden by the secure sum.", _finite(joint))
    if len(losses) == 1:
        return Curve(title, "One site.", mean)
    faint = [finite for points in losses.values() if (finite := _finite(points))]
    return Curve(title, "Mean over the sites; each site faint.", mean, faint)


def _logged_by_the_server(component: Component) -> list[tuple[str, str, str]]:
    """Return key, title and caption of each value that a line of the log holds by component."""
    meaning = SHIPPED[component].validation if component in SHIPPED else ""
    questions = f"All sites' validation questions{f': {meaning}' if meaning else ''}."
    return [
        ("validation", f"Validation of the {component}", questions),
        ("update_norm", f"Size of the {component}'s update", "L2 norm of what was added to the weights."),
        (
            "aggregation_error",
            f"Aggregation error of the {component}",
            "How far the mean of the LoRA factors is from the mean of their products, relative to the latter.",
        ),
        ("learning_rate", f"Learning rate of the {component}", "At the sites, in the middle of each round."),
    ]


def _finite(points: Points) -> Points:
    return [(number, value) for number, value in points if math.isfinite(value)]
