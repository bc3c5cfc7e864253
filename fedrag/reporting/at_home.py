"""What the sites made of the federated result at home: what each kept, and how that compares with training alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedrag.evaluation.compare import compare_scores
from fedrag.evaluation.records import TITLES, Scores
from fedrag.languages.catalogue import ENGLISH, Words
from fedrag.reporting.verdict import percent
from fedrag.runs.home_results import HOME_FOLDER, HomeScore, home_scores, kept_counts, load_home
from fedrag.runs.run_folder import RunFolder
from fedrag.text import printable
from fedrag.types import Component


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


def at_home(
    run: RunFolder, scores: Mapping[str, Scores], metrics: Sequence[str], words: Words = ENGLISH
) -> AtHome | None:
    """Return the section; None where no site trained at home.

    Args:
        run: The run.
        scores: The metrics of each question, by arm.
        metrics: Those to compare by.
        words: The language. Why a site could not train is told in the words of the error, which are English.
    """
    sites = home_scores(run.path)
    if not sites:
        return None
    rows = [_row(site, component, score, words) for site, found in sites.items() for component, score in found.items()]
    untrained = {site: home.why for site in sites if (home := load_home(run.path / HOME_FOLDER / site)) and home.why}
    notes = [words("home.untrained", site=printable(site), why=printable(why)) for site, why in untrained.items()]
    return AtHome(_summary(sites, words), rows, [*_beside_local(scores, metrics, words), *notes])


def _summary(sites: Mapping[str, Mapping[Component, HomeScore]], words: Words) -> str:
    own, by_component = kept_counts(sites)
    if not by_component:
        return words("home.nobody")
    parts = [words("home.kept_of", component=words.component(c), count=count) for c, count in by_component.items()]
    return words("home.kept", own=own, n=len(sites), parts=words.listed(parts))


def _row(site: str, component: Component, score: HomeScore, words: Words) -> HomeRow:
    def told(value: float) -> str:
        return percent(value, words=words) if component == "retriever" else words.number(f"{value:.3f}")

    measures = {"retriever": TITLES["mrr"], "generator": words("home.log_probability")}
    name = words.component(component)
    if component in measures:
        name = words("home.by", component=name, measure=measures[component])
    kept = words("home.keeps_own" if score.kept else "home.keeps_federated")
    return HomeRow(printable(site), name, told(score.before), told(score.after), score.count, kept)


def _beside_local(scores: Mapping[str, Scores], metrics: Sequence[str], words: Words) -> list[str]:
    """Return sentences that compare what the sites keep with training alone; none where both were not measured."""
    if not {"local", "personalised"} <= scores.keys():
        return []
    said = []
    for metric in metrics:
        if row := compare_scores(scores["local"], scores["personalised"], metric):
            found = row.difference
            mean, low, high = (
                percent(value, sign=True, words=words) for value in (found.mean_difference, found.low, found.high)
            )
            below = _below_local(scores, metric, words)
            said.append(words("home.beside_local", metric=TITLES[metric], mean=mean, low=low, high=high, below=below))
    return said


def _below_local(scores: Mapping[str, Scores], metric: str, words: Words) -> str:
    """Return which sites are worse off than alone, by the mean of a metric."""
    worse, sites = [], sorted({site for site, _ in scores["local"]})
    for site in sites:
        local, own = ({k: v for k, v in scores[arm].items() if k[0] == site} for arm in ("local", "personalised"))
        row = compare_scores(local, own, metric)
        worse += [printable(site)] if row and row.second < row.first else []
    if not worse:
        return words("home.below_none", n=len(sites))
    return words("home.below", worse=len(worse), all=words("count.sites", n=len(sites)), sites=words.listed(worse))
