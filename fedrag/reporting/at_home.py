"""What the sites made of the federated result at home: what each kept, and how that compares with training alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedrag.evaluation.compare import compare_scores
from fedrag.evaluation.records import TITLES, Scores
from fedrag.reporting.verdict import percent
from fedrag.runs.home_results import HOME_FOLDER, HomeScore, home_scores, kept_text, load_home
from fedrag.runs.run_folder import RunFolder
from fedrag.text import plural, printable
from fedrag.types import Component

_MEASURES = {"retriever": "MRR", "generator": "log-probability of an answer token"}


@dataclass(frozen=True, slots=True)
class HomeRow:
    """A component at a site, as the page shows it.

    Attributes:
        site: The site.
        component: The component, and by what it was judged.
        before: With the federated weights.
        after: With the site's own.
        count: What the figures are means over.
        kept: Which of the two the site keeps.
    """

    site: str
    component: str
    before: str
    after: str
    count: int
    kept: str


@dataclass(frozen=True, slots=True)
class AtHome:
    """The section on training at home.

    Attributes:
        summary: How many sites kept weights of their own.
        rows: What each site has.
        notes: What compares it with training alone, and which sites did not train at home.
    """

    summary: str
    rows: list[HomeRow]
    notes: list[str]


def at_home(run: RunFolder, scores: Mapping[str, Scores], metrics: Sequence[str]) -> AtHome | None:
    """Return the section; None where no site trained at home.

    Args:
        run: The run.
        scores: The metrics of each question, by arm.
        metrics: Those to compare by.
    """
    sites = home_scores(run.path)
    if not sites:
        return None
    rows = [_row(site, component, score) for site, found in sites.items() for component, score in found.items()]
    untrained = {site: home.why for site in sites if (home := load_home(run.path / HOME_FOLDER / site)) and home.why}
    notes = [f"{printable(site)} keeps the federated models: {printable(why)}." for site, why in untrained.items()]
    return AtHome(f"{kept_text(sites)}.", rows, [*_beside_local(scores, metrics), *notes])


def _row(site: str, component: Component, score: HomeScore) -> HomeRow:
    told = percent if component == "retriever" else "{:.3f}".format
    name = f"{component}, {_MEASURES[component]}" if component in _MEASURES else component
    kept = "its own" if score.kept else "the federated"
    return HomeRow(printable(site), name, told(score.before), told(score.after), score.count, kept)


def _beside_local(scores: Mapping[str, Scores], metrics: Sequence[str]) -> list[str]:
    """Return sentences that compare what the sites keep with training alone; none where both were not measured."""
    if not {"local", "personalised"} <= scores.keys():
        return []
    said = []
    for metric in metrics:
        row = compare_scores(scores["local"], scores["personalised"], metric)
        if row:
            found = row.difference
            mean, low, high = (percent(value, sign=True) for value in (found.mean_difference, found.low, found.high))
            said.append(
                f"{TITLES[metric]}, personalised minus local: {mean} points (95\N{NO-BREAK SPACE}% interval {low} to "
                f"{high}); {_worse_than_local(scores, metric)}."
            )
    return said


def _worse_than_local(scores: Mapping[str, Scores], metric: str) -> str:
    """Return how many sites are worse off than alone, by the mean of a metric."""
    worse, sites = [], sorted({site for site, _ in scores["local"]})
    for site in sites:
        local, own = ({k: v for k, v in scores[arm].items() if k[0] == site} for arm in ("local", "personalised"))
        row = compare_scores(local, own, metric)
        worse += [printable(site)] if row and row.second < row.first else []
    named = f": {', '.join(worse)}" if worse else ""
    return f"{len(worse)} of {plural(len(sites), 'site')} {'is' if len(worse) == 1 else 'are'} below local{named}"
