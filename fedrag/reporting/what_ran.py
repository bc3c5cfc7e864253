"""What ran, what is missing of it, and what the reader of its figures must know."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedrag.config.averaging import averaging_text
from fedrag.config.schedule import schedule_text, trained_components
from fedrag.data.origins import origins_text
from fedrag.dp.accounting import has_opacus, usual_delta
from fedrag.dp.ledger import LEDGER_FILE, PrivacyLedger
from fedrag.dp.site_noise import spent_text
from fedrag.evaluation.records import Scores
from fedrag.files import read_json
from fedrag.reporting.arms import ARMS
from fedrag.reporting.round_log import Records, SiteTotals, epsilon_text, spent_epsilon, temperatures
from fedrag.runs.run_folder import RunFolder
from fedrag.text import plural, size_text
from fedrag.types import COMPONENTS

MEANINGS = {
    "untouched": "the models as they were fetched",
    "local": "each site with models trained on its own data alone",
    "federated": "the models that the sites trained together",
    "personalised": "these, trained on at each site on its own data, and kept where its validation questions gain",
    "pooled": "one model trained on the data of all sites in one place",
}

INTERVALS = (
    "Below each difference stands its 95\N{NO-BREAK SPACE}% interval: a paired bootstrap, 10,000 draws over "
    "the questions. It covers chance in the choice of questions, not in the training, which ran with one seed. "
    "A difference is bold where its interval leaves zero out; of many intervals, some do by chance alone."
)

BY_SITE = (
    "The interval by site draws whole sites: where the questions of a site belong together, it is the one to go by, "
    "though of few sites it is too narrow. A difference over several sites is bold where both leave zero out."
)


def warnings(run: RunFolder, scores: Mapping[str, Scores]) -> list[str]:
    """Return what the reader must know before anything else."""
    unfinished = _unfinished(run, scores)
    said = [unfinished] if unfinished else []
    return said + random_models([model["name"] for model in run.facts.get("models", {}).values()])


def random_models(names: Iterable[str]) -> list[str]:
    """Warn of models that were made for tests."""
    if any(name.startswith("fedrag/tiny-") for name in names):
        return ["This run used random models, made for tests: its figures mean nothing."]
    return []


def _unfinished(run: RunFolder, scores: Mapping[str, Scores]) -> str | None:
    done, wanted = len(run.rounds()), run.config.federation.rounds
    told = f"{done} of {wanted} rounds are done"
    if not run.is_finished and is_deployed(run):
        return _left_off(run, told)
    go_on = f"Go on with: {resume_command(run)}"
    if not run.is_finished:
        return f"This run is not finished: {told}. {go_on}"
    if _is_to_be_measured(run) and not (run.path / "results.json").is_file():
        names = ", ".join(ARMS[arm].lower() for arm in scores)
        return f"This run is not finished: all rounds are done, measured so far: {names or 'nothing'}. {go_on}"
    return None


def _left_off(run: RunFolder, told: str) -> str:
    """Return how far a coordinator's run is, why it stopped, and how to resume it."""
    outcome = outcome_of(run)
    if outcome.get("state") not in ("stopped", "failed"):
        return f"This run is not finished: {told}."
    why = f"This run {'was stopped' if outcome['state'] == 'stopped' else 'failed'}: {outcome['why']}; {told}."
    return f"{why} Go on with: {resume_command(run)}"


def resume_command(run: RunFolder) -> str:
    """Return the command that goes on with a run, or the call where it needs functions that no command knows."""
    if is_deployed(run):
        return f"fedrag server resume {_coordinator(run)} {run.path.resolve().name}"
    given = {} if "own_module" in run.facts else run.facts.get("own", {})  # an older run has none
    arguments = dict.fromkeys(what.partition(".")[0] for what in given)
    own = "".join(f", {argument}=..." for argument in arguments)
    return f'fedrag.resume("{run.path}"{own})' if own else f"fedrag simulate --resume {shlex.quote(str(run.path))}"


def is_deployed(run: RunFolder) -> bool:
    """Return whether a coordinator ran it: then the data stayed at the sites."""
    return bool(outcome_of(run)) or run.facts.get("data") == {}


def outcome_of(run: RunFolder) -> dict[str, Any]:
    """Return the state that a coordinator noted for its run; empty where no `fedrag server` ran it."""
    path = run.path / "outcome.json"
    return read_json(path) if path.is_file() else {}


def _coordinator(run: RunFolder) -> str:
    """Return the coordinator's folder as an operator types it; DIR where the run no longer lies in it."""
    folder = run.path.absolute().parent.parent
    return shlex.quote(str(folder)) if (folder / "server.toml").is_file() else "DIR"


def command(run: RunFolder) -> str:
    """Return the command that runs the same again."""
    scenario = shlex.quote(str(run.path / "scenario.toml"))
    return f"fedrag server run {_coordinator(run)} {scenario}" if outcome_of(run) else f"fedrag simulate {scenario}"


def nothing_measured(run: RunFolder) -> str:
    """Return why there is no verdict."""
    if is_deployed(run):
        return (
            "A deployed run holds sums and counts alone: questions, answers and examples stay at the sites, "
            "so nothing was measured here."
        )
    if _is_to_be_measured(run):
        return "The federated models are not measured yet, so there is no verdict."
    return "Nothing was measured, so there is no verdict; to measure: fedrag evaluate RUN --data SITES."


def _is_to_be_measured(run: RunFolder) -> bool:
    """Return whether the run itself measures its models; a coordinator has no data and does not."""
    return run.config.evaluation.split != "none" and not is_deployed(run)


def notes(run: RunFolder, scores: Mapping[str, Scores]) -> list[str]:
    """Return what the reader of the results must know."""
    said = []
    if "federated" in scores and len(scores) > 1:
        said.append(INTERVALS)
        if len({site for site, _ in scores["federated"]}) > 1:
            said.append(BY_SITE)
    if "local" in scores:
        untrained = sorted(name for name in run.facts.get("data", {}) if not _was_trained_alone(run, name))
        if untrained:
            said.append(f"Not trained alone, and therefore untouched in the column Local: {', '.join(untrained)}.")
    return said


def hidden_by_secure_sum(run: RunFolder) -> str:
    """Return what a secure sum kept from the server; "" where there was none."""
    if not run.config.federation.secure:
        return ""
    return (
        "Secure sum: no site's loss, norm or counts were seen, only their sums over all sites. The aggregation error "
        "takes single updates, so it could not be measured, and neither could a single update be judged too large."
    )


def _was_trained_alone(run: RunFolder, site: str) -> bool:
    baselines = run.path / "baselines"
    return not baselines.is_dir() or (baselines / f"local-{site}" / "final" / "state.safetensors").is_file()


def summary(run: RunFolder, records: Records, totals: Mapping[str, SiteTotals]) -> str:
    """Return in one line how large the run was."""
    sites = len(run.facts.get("data") or totals)
    exchanged = sum(total.received + total.sent for total in totals.values())
    parts = [plural(sites, "site"), plural(len(records), "round"), duration(sum(r["seconds"] for r in records))]
    return f"{', '.join(parts)}; {size_text(exchanged)} of weights exchanged, no question and no passage"


def facts(
    run: RunFolder,
    records: Records,
    totals: Mapping[str, SiteTotals],
    scores: Mapping[str, Scores],
) -> dict[str, str]:
    """Return what ran, by name."""
    config, recorded = run.config, run.facts
    sites = sorted(recorded.get("data") or totals)
    found = {"Scenario": f"{config.name}, seed {config.seed}", **_models(run)}
    for what, name in recorded.get("own", {}).items():
        found["Own aggregation rule" if what == "rule" else f"Own {what.partition('.')[2]} loss"] = name
    if told := temperatures(records):
        found["Losses"] = ", ".join(told)
    found["Sites"] = f"{len(sites)}: {', '.join(sites)}"
    if origins := origins_text(recorded.get("origins", {}), "training question"):
        found["Learned from"] = origins
    found["Rounds"] = f"{len(records)} of {config.federation.rounds}, {schedule_text(config.federation)}"
    for extension in recorded.get("extended", ()):
        found["Rounds"] += f"; extended from {extension['from']} to {extension['to']}"
    if averaging := averaging_text(config.federation, trained_components(config.federation)):
        found["Averaged"] = averaging
    found |= _noise_facts(run, records)
    found["Time in rounds"] = duration(sum(record["seconds"] for record in records))
    received, sent = sum(t.received for t in totals.values()), sum(t.sent for t in totals.values())
    found["Bytes"] = f"{size_text(received)} to the sites, {size_text(sent)} back ({config.federation.wire})"
    if run.is_delivered:
        found["Delivered to"] = _delivered_to(run, sites)
    if scores:
        questions = len({key for arm in scores.values() for key in arm})
        split = "" if config.evaluation.split == "all" else f"{config.evaluation.split} "
        of = "held-out sites" if config.evaluation.sites == "held-out" else "the sites that took part"
        found["Measured on"] = f"{questions:,} {split}questions of {of}"
    if recorded:
        machine = recorded.get("machine", {})
        threads = plural(recorded["threads"], "thread")
        found["Started"] = recorded["started"].replace("T", " ").replace("Z", " UTC")
        formats = ", ".join(f"{component} in {dtype}" for component, dtype in recorded["dtype"].items())
        found["Machine"] = f"{machine.get('processor')}, {machine.get('device')}, {threads}; {formats}"
        versions = ", ".join(f"{name} {version}" for name, version in recorded["versions"].items())
        found["Versions"] = f"fedrag {recorded['fedrag']}, {versions}"
    return found


def _noise_facts(run: RunFolder, records: Records) -> dict[str, str]:
    """Return what noise covers single questions, and what whole clients."""
    found = {"Noise": noise_text(run, records)} if run.config.privacy.is_on else {}
    if run.config.simulation.site_noise.is_on:
        found["Noise on the mean"] = spent_text(run.config, records)
    return found


def noise_text(run: RunFolder, records: Records) -> str:
    """Return what noise was to protect, and what the sites have spent of it."""
    settings = run.config.privacy
    told = ", ".join(spent_epsilon(records) or ledger_epsilon(run))
    spent = told or "each site keeps it in its own privacy.jsonl and did not tell"
    delta = "one in ten times a site's questions" if settings.delta == "auto" else f"{settings.delta:g}"
    return (
        f"for single questions or subjects, epsilon up to {settings.epsilon:g} at delta {delta}; spent: {spent}; "
        "passages are not protected"
    )


def ledger_epsilon(run: RunFolder) -> list[str]:
    """Return, in words, what each simulated site has in its ledger; nothing where the ledgers are not in the run.

    In a secure sum no site tells it. A deployed site's ledger stays there.
    """
    if not has_opacus():
        return []
    last = {}
    for path in sorted((run.path / "sites").glob(f"*/{LEDGER_FILE}")):
        ledger, asked = PrivacyLedger(path), run.config.privacy.delta
        if entries := ledger.entries():
            last[path.parent.name] = ledger.epsilon(usual_delta(entries[-1].units) if asked == "auto" else asked)
    return epsilon_text(last)


def _models(run: RunFolder) -> dict[str, str]:
    """Return the models by component, and what they started from where it was an earlier run."""
    recorded, trained = run.facts, trained_components(run.config.federation)
    start = recorded.get("start_from", {})
    found = {}
    for component in COMPONENTS:
        if model := recorded.get("models", {}).get(component):
            kept = f"as {start['run']} trained it" if component in start.get("components", ()) else "not trained"
            found[component.capitalize()] = f"{model['name']} ({'trained' if component in trained else kept})"
    if start:
        found["Started from"] = f"{start['run']}, {plural(start['rounds'], 'round')} of {start['scenario']}"
    return found


def _delivered_to(run: RunFolder, sites: Sequence[str]) -> str:
    reached = read_json(run.path / "delivery.json")["delivered_to"]
    missed = [site for site in sites if site not in reached]
    return (", ".join(reached) or "no site") + (f"; not to {', '.join(missed)}" if missed else "")


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
