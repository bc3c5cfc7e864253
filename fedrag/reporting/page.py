"""Writes the report of a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedrag.errors import DataError
from fedrag.evaluation.records import TITLES, Measured
from fedrag.files import write_text
from fedrag.reporting import examples, rounds
from fedrag.reporting.arms import ARMS, BY_SITE, Line, measured_metrics, overall_lines, read_arms, site_lines
from fedrag.reporting.figures import bytes_figure, curve_figure, dots_figure
from fedrag.reporting.verdict import METRIC_WORDS, headline_metrics, percent, verdict
from fedrag.runs import RunFolder
from fedrag.schedule import trained_components
from fedrag.types import COMPONENTS

_MEANINGS = {
    "untouched": "the models as they were fetched",
    "local": "each site with a model trained on its own data alone",
    "federated": "the models that the sites trained together",
    "pooled": "one model trained on all data in one place",
}
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


@dataclass(frozen=True, slots=True)
class Example:
    """A question as the page shows it; passages are (excerpt, title, labelled, id)."""

    title: str
    question: str
    answers: tuple[str, ...]
    before: str | None
    after: str | None
    compared: bool
    passages_before: list[dict[str, Any]]
    passages_after: list[dict[str, Any]]


def write_report(run: RunFolder | Path | str, out: Path | str | None = None) -> Path:
    """Write one self-contained HTML page about a run, finished or not.

    Args:
        run: The run or its folder.
        out: The file; by default `report.html` in the run folder.

    Returns:
        The file that was written.

    Raises:
        RunError: It is no run folder, or what it holds is damaged.
        StorageError: The file cannot be written.
    """
    if not isinstance(run, RunFolder):
        run = RunFolder.open(Path(run))
    path = Path(out) if out is not None else run.path / "report.html"
    write_text(path, render(run))
    return path


def render(run: RunFolder) -> str:
    """Return the page as HTML text."""
    environment = Environment(
        loader=PackageLoader("fedrag.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["size"] = size
    environment.filters["duration"] = duration
    return environment.get_template("page.html.jinja").render(_content(run))


def _content(run: RunFolder) -> dict[str, Any]:
    records, arms = run.rounds(), read_arms(run)
    totals = rounds.site_totals(records)
    trained = trained_components(run.config.federation)
    lines = overall_lines(arms)
    return {
        "run": run,
        "name": run.path.resolve().name,
        "state": _state(run, arms),
        "verdicts": _verdicts(run, arms, lines),
        "facts": _facts(run, records, totals, arms),
        "commands": [f"fedrag simulate {shlex.quote(str(run.path / 'scenario.toml'))}"],
        "arms": {arm: title for arm, title in ARMS.items() if arm in arms},
        "meanings": _MEANINGS,
        "overall": lines,
        "by_site": _by_site(arms),
        "dots": _dots(arms, lines, trained),
        "curves": _curves(records),
        "totals": totals,
        "bytes": _bytes(totals),
        "left_out": rounds.left_out(records),
        "examples": _examples(run, arms),
        "kinds": examples.KINDS,
        "compared": "untouched" in arms,
    }


def _state(run: RunFolder, arms: Mapping[str, Any]) -> str | None:
    """Say what is missing of a run; None: nothing."""
    done, wanted = len(run.rounds()), run.config.federation.rounds
    go_on = f"Go on with: fedrag simulate --resume {shlex.quote(str(run.path))}"
    if not run.is_finished:
        return f"This run is not finished: {done} of {wanted} rounds are done. {go_on}"
    if run.config.evaluation.split != "none" and not (run.path / "results.json").is_file():
        measured = f"{len(arms)} arms were measured so far" if arms else "nothing was measured so far"
        return f"This run is not finished: all rounds are done, {measured}. {go_on}"
    return None


def _verdicts(run: RunFolder, arms: Mapping[str, Sequence[Measured]], lines: Sequence[Line]) -> list[str]:
    by_title = {line.label: line for line in lines}
    if "federated" not in arms or not lines:
        reason = 'The scenario says so: evaluation.split = "none". ' if run.config.evaluation.split == "none" else ""
        return [f"Nothing was measured, so there is no verdict. {reason}".strip()]
    found = []
    for metric in headline_metrics(trained_components(run.config.federation), measured_metrics(arms)):
        line = by_title[TITLES[metric]]
        federated = line.means["federated"]
        if federated is not None:
            found.append(verdict(metric, federated, line.differences, line.n_questions))
    return found


def _facts(
    run: RunFolder,
    records: rounds.Records,
    totals: Mapping[str, rounds.SiteTotals],
    arms: Mapping[str, Sequence[Measured]],
) -> dict[str, str]:
    """Return what ran, by name."""
    config, facts = run.config, run.facts
    sites = sorted(facts.get("data") or totals)
    trained = trained_components(config.federation)
    models = facts.get("models", {})
    found = {"Scenario": f"{config.name}, seed {config.seed}"}
    for component in COMPONENTS:
        if component in models:
            role = "trained" if component in trained else "not trained"
            found[component.capitalize()] = f"{models[component]['name']} ({role})"
    found["Sites"] = f"{len(sites)}: {', '.join(sites)}"
    found["Rounds"] = f"{len(records)} of {config.federation.rounds}, schedule {config.federation.schedule}"
    found["Time in rounds"] = duration(sum(record["seconds"] for record in records))
    received, sent = sum(t.received for t in totals.values()), sum(t.sent for t in totals.values())
    found["Bytes"] = f"{size(received)} to the sites, {size(sent)} back ({config.federation.wire})"
    if arms:
        questions = len({item.key for measured in arms.values() for item in measured})
        split = "" if config.evaluation.split == "all" else f"{config.evaluation.split} "
        of = "held-out sites" if config.evaluation.sites == "held-out" else "the sites that took part"
        found["Measured on"] = f"{questions:,} {split}questions of {of}"
    if facts:
        machine = facts.get("machine", {})
        threads = f"{facts['threads']} thread{'' if facts['threads'] == 1 else 's'}"
        found["Started"] = facts["started"].replace("T", " ").replace("Z", " UTC")
        found["Machine"] = f"{machine.get('processor')}, {machine.get('device')}, {threads}, {facts['dtype']}"
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        found["Versions"] = f"fedrag {facts['fedrag']}, {versions}"
    return found


def _by_site(arms: Mapping[str, Sequence[Measured]]) -> dict[str, list[Line]]:
    found = {TITLES[metric]: site_lines(arms, metric) for metric in measured_metrics(arms) if metric in BY_SITE}
    return {title: lines for title, lines in found.items() if lines}


def _dots(arms: Mapping[str, Sequence[Measured]], overall: Sequence[Line], trained: Sequence[str]) -> list[Plot]:
    plots = []
    for metric in headline_metrics(trained, measured_metrics(arms)):
        whole = next(line for line in overall if line.label == TITLES[metric])
        lines = [Line("all", whole.n_questions, whole.means, whole.differences), *site_lines(arms, metric)]
        word = METRIC_WORDS[metric]
        title = word[0].upper() + word[1:]
        told = "; ".join(f"{line.label}: {_told(line)}" for line in lines)
        plots.append(Plot(f"{title} by site", "", f"{title} in per cent. {told}.", dots_figure(lines)))
    return plots


def _told(line: Line) -> str:
    return ", ".join(f"{ARMS[arm].lower()} {percent(value)}" for arm, value in line.means.items() if value is not None)


def _curves(records: rounds.Records) -> list[Plot]:
    plots = []
    for component in COMPONENTS:
        losses = rounds.site_losses(records, component)
        if losses:
            mean = rounds.mean_curve(losses)
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
            points = rounds.curve(records, key, component)
            if points:
                plots.append(_curve_plot(title, caption, points))
    return plots


def _curve_plot(title: str, caption: str, mean: rounds.Points, faint: Mapping[str, rounds.Points] = {}) -> Plot:
    told = ", ".join(f"round {number}: {value:.3g}" for number, value in mean)
    return Plot(title, caption, f"{title} by round. {told}.", curve_figure(mean, faint))


def _bytes(totals: Mapping[str, rounds.SiteTotals]) -> list[Plot]:
    if not totals:
        return []
    told = "; ".join(f"{name}: {size(t.received)} received, {size(t.sent)} sent" for name, t in totals.items())
    svg = bytes_figure({n: t.received for n, t in totals.items()}, {n: t.sent for n, t in totals.items()})
    caption = "Weights in training messages; greeting, validation and delivery come on top."
    return [Plot("Bytes by site", caption, f"Bytes by site. {told}.", svg)]


def _examples(run: RunFolder, arms: Mapping[str, Sequence[Measured]]) -> list[dict[str, Any]]:
    """Return a block for each site: how many questions of each kind, the examples, or why there are none."""
    found = []
    for site, kinds in examples.by_site(arms.get("untouched"), arms.get("federated", ())).items():
        block: dict[str, Any] = {
            "site": site,
            "counts": {k: len(v) for k, v in kinds.items()},
            "shown": [],
            "gone": None,
        }
        try:
            texts = examples.read_texts(run, site)
            block["shown"] = [
                _example(examples.KINDS[kind] if "untouched" in arms else kind.capitalize(), pair, texts)
                for kind, pair in examples.chosen(kinds, "untouched" in arms).items()
                if pair.after.question_id in texts.questions
            ]
        except DataError as error:
            block["gone"] = str(error)
        found.append(block)
    return found


def _example(title: str, pair: examples.Pair, texts: examples.Texts) -> Example:
    question = texts.questions[pair.after.question_id]

    def passages(measured: Measured | None) -> list[dict[str, Any]]:
        known = [texts.passages[i] for i in (measured.retrieved if measured else ()) if i in texts.passages]
        return [
            {
                "id": passage.id,
                "title": passage.title,
                "labelled": passage.id in question.passage_ids,
                "excerpt": examples.excerpt(passage.text, question.answers),
            }
            for passage in known
        ]

    return Example(
        title,
        question.question,
        question.answers,
        pair.before.answer if pair.before else None,
        pair.after.answer,
        pair.before is not None,
        passages(pair.before),
        passages(pair.after),
    )


def size(number: float) -> str:
    """Return a number of bytes with a unit.

    >>> size(763392)
    '763 kB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            break
        number /= 1000
    return f"{number:,.0f} {unit}" if number >= 100 or unit == "B" else f"{number:.1f} {unit}"


def duration(seconds: float) -> str:
    """Return a time in words.

    >>> duration(11.1), duration(75), duration(3725)
    ('11 s', '1 min 15 s', '1 h 02 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
