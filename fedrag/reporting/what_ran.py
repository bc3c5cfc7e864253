"""What ran, what is missing of it, and what the reader of its figures must know."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedrag.config.averaging import averaging_text
from fedrag.config.schedule import schedule_text, trained_components
from fedrag.data.origins import origins_text
from fedrag.dp.accounting import has_accounting, usual_delta
from fedrag.dp.ledger import LEDGER_FILE, PrivacyLedger
from fedrag.dp.site_noise import spent_epsilon as spent_by_clients
from fedrag.evaluation.records import Scores
from fedrag.files import read_json
from fedrag.languages.catalogue import ENGLISH, Words
from fedrag.reporting.round_log import Records, SiteTotals, epsilon_text, spent_epsilon, temperatures
from fedrag.runs.run_folder import RunFolder
from fedrag.types import COMPONENTS


def warnings(run: RunFolder, scores: Mapping[str, Scores], words: Words = ENGLISH) -> list[str]:
    """Return what the reader must know before anything else."""
    unfinished = _unfinished(run, scores, words)
    said = [unfinished] if unfinished else []
    return said + random_models([model["name"] for model in run.facts.get("models", {}).values()], words)


def random_models(names: Iterable[str], words: Words = ENGLISH) -> list[str]:
    """Warn of models that were made for tests."""
    if any(name.startswith("fedrag/tiny-") for name in names):
        return [words("warning.random")]
    return []


def _unfinished(run: RunFolder, scores: Mapping[str, Scores], words: Words) -> str | None:
    told = words("warning.done", done=len(run.rounds()), n=run.config.federation.rounds)
    if not run.is_finished and is_deployed(run):
        return _left_off(run, told, words)
    go_on = words("warning.go_on", command=resume_command(run))
    if not run.is_finished:
        return words.spaced([words("warning.unfinished", told=told), go_on])
    if _is_to_be_measured(run) and not (run.path / "results.json").is_file():
        arms = words.listed([words(f"arm.{arm}").lower() for arm in scores]) or words("warning.no_arm")
        return words.spaced([words("warning.unmeasured", arms=arms), go_on])
    return None


def _left_off(run: RunFolder, told: str, words: Words) -> str:
    """Return how far a coordinator's run is, why it stopped, and how to resume it."""
    outcome = outcome_of(run)
    if outcome.get("state") not in ("stopped", "failed"):
        return words("warning.unfinished", told=told)
    why = words(f"warning.{outcome['state']}", why=outcome["why"], told=told)
    return words.spaced([why, words("warning.go_on", command=resume_command(run))])


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


def nothing_measured(run: RunFolder, words: Words = ENGLISH) -> str:
    """Return why there is no verdict."""
    if is_deployed(run):
        return words("unmeasured.deployed")
    return words("unmeasured.yet" if _is_to_be_measured(run) else "unmeasured.never")


def _is_to_be_measured(run: RunFolder) -> bool:
    """Return whether the run itself measures its models; a coordinator has no data and does not."""
    return run.config.evaluation.split != "none" and not is_deployed(run)


def notes(run: RunFolder, scores: Mapping[str, Scores], words: Words = ENGLISH) -> list[str]:
    """Return what the reader of the results must know."""
    said = []
    if "federated" in scores and len(scores) > 1:
        said.append(words("note.intervals"))
        if len({site for site, _ in scores["federated"]}) > 1:
            said.append(words("note.by_site"))
    if "local" in scores:
        untrained = sorted(name for name in run.facts.get("data", {}) if not _was_trained_alone(run, name))
        if untrained:
            said.append(words("note.untrained", sites=words.listed(untrained)))
    return said


def _was_trained_alone(run: RunFolder, site: str) -> bool:
    baselines = run.path / "baselines"
    return not baselines.is_dir() or (baselines / f"local-{site}" / "final" / "state.safetensors").is_file()


def summary(run: RunFolder, records: Records, totals: Mapping[str, SiteTotals], words: Words = ENGLISH) -> str:
    """Return in one line how large the run was."""
    exchanged = sum(total.received + total.sent for total in totals.values())
    return words(
        "fact.summary",
        sites=words("count.sites", n=len(run.facts.get("data") or totals)),
        rounds=words("count.rounds", n=len(records)),
        time=duration(sum(record["seconds"] for record in records), words),
        size=words.size(exchanged),
    )


def facts(
    run: RunFolder,
    records: Records,
    totals: Mapping[str, SiteTotals],
    scores: Mapping[str, Scores],
    words: Words = ENGLISH,
) -> dict[str, str]:
    """Return what ran, by name."""
    config, recorded = run.config, run.facts
    sites, trained = sorted(recorded.get("data") or totals), trained_components(config.federation)
    scenario = words("fact.of_scenario", scenario=config.name, seed=f"{config.seed}")
    named = {words("fact.scenario"): scenario, **_models(run, words)}
    for what, name in recorded.get("own", {}).items():
        loss = what.partition(".")[2]
        named[words("fact.own_rule") if what == "rule" else words("fact.own_loss", loss=loss)] = name
    received, sent = sum(t.received for t in totals.values()), sum(t.sent for t in totals.values())
    told = {
        "losses": words.listed(temperatures(records, words)),
        "sites": words("fact.of_sites", n=len(sites), sites=words.listed(sites)),
        "origins": origins_text(recorded.get("origins", {}), "training_questions", words),
        "rounds": _rounds(run, records, words),
        "averaged": averaging_text(config.federation, trained, words),
        "noise": noise_text(run, records, words) if config.privacy.is_on else "",
        "site_noise": _site_noise_text(run, records, words) if config.simulation.site_noise.is_on else "",
        "time": duration(sum(record["seconds"] for record in records), words),
        "bytes": words(
            "fact.of_bytes", received=words.size(received), sent=words.size(sent), wire=config.federation.wire
        ),
        "delivered": _delivered_to(run, sites, words) if run.is_delivered else "",
        "measured": _measured_on(run, scores, words) if scores else "",
        **(_machine(recorded, words) if recorded else {}),
    }
    return named | {words(f"fact.{key}"): text for key, text in told.items() if text}


def _rounds(run: RunFolder, records: Records, words: Words) -> str:
    federation = run.config.federation
    schedule = schedule_text(federation, words)
    told = [words("fact.of_rounds", done=len(records), n=federation.rounds, schedule=schedule)]
    for extension in run.facts.get("extended", ()):
        told.append(words("fact.extended", first=extension["from"], last=extension["to"]))
    return words.unfilled("marks.semicolon").join(told)


def _measured_on(run: RunFolder, scores: Mapping[str, Scores], words: Words) -> str:
    evaluation = run.config.evaluation
    questions = words(f"split.{evaluation.split}", n=len({key for arm in scores.values() for key in arm}))
    return words("fact.held_out" if evaluation.sites == "held-out" else "fact.took_part", questions=questions)


def _machine(recorded: Mapping[str, Any], words: Words) -> dict[str, str]:
    """Return when and on what the run was started."""
    machine = recorded.get("machine", {})
    formats = [
        words("fact.format", component=words.component(name), dtype=dtype) for name, dtype in recorded["dtype"].items()
    ]
    place = [f"{machine.get('processor')}", f"{machine.get('device')}", words("count.threads", n=recorded["threads"])]
    versions = [f"fedrag {recorded['fedrag']}", *(f"{name} {told}" for name, told in recorded["versions"].items())]
    started = recorded["started"]
    return {
        "started": f"{words.date(started)} {started[11:].replace('Z', ' UTC')}",
        "machine": words.unfilled("marks.semicolon").join([words.listed(place), words.listed(formats)]),
        "versions": words.listed(versions),
    }


def noise_text(run: RunFolder, records: Records, words: Words = ENGLISH) -> str:
    """Return what noise was to protect, and what the sites have spent of it."""
    settings = run.config.privacy
    spent = words.listed(spent_epsilon(records, words) or ledger_epsilon(run, words)) or words("fact.not_told")
    delta = words("fact.delta_auto") if settings.delta == "auto" else words.number(f"{settings.delta:g}")
    return words("fact.of_noise", epsilon=words.number(f"{settings.epsilon:g}"), delta=delta, spent=spent)


def ledger_epsilon(run: RunFolder, words: Words = ENGLISH) -> list[str]:
    """Return, in words, what each simulated site has in its ledger; nothing where the ledgers are not in the run.

    In a secure sum no site tells it. A deployed site's ledger stays there.
    """
    if not has_accounting():
        return []
    last = {}
    for path in sorted((run.path / "sites").glob(f"*/{LEDGER_FILE}")):
        ledger, asked = PrivacyLedger(path), run.config.privacy.delta
        if entries := ledger.entries():
            last[path.parent.name] = ledger.epsilon(usual_delta(entries[-1].units) if asked == "auto" else asked)
    return epsilon_text(last, words)


def _site_noise_text(run: RunFolder, records: Records, words: Words) -> str:
    """Return what noise that covers whole clients was to protect, and what the rounds have spent of it."""
    most = words.number(f"{run.config.simulation.site_noise.epsilon:g}")
    spent = spent_by_clients(records)
    if spent is None:
        return words("fact.site_noise_unspent", epsilon=most)
    epsilon, delta = spent
    told = words("fact.not_known") if epsilon is None else words.number(f"{epsilon:.2f}")
    return words("fact.of_site_noise", epsilon=most, delta=words.number(f"{delta:.2g}"), spent=told)


def _models(run: RunFolder, words: Words) -> dict[str, str]:
    """Return the models by component, and what they started from where it was an earlier run."""
    recorded, trained = run.facts, trained_components(run.config.federation)
    start = recorded.get("start_from", {})
    found = {}
    for component in COMPONENTS:
        if model := recorded.get("models", {}).get(component):
            kept = "fact.kept" if component in start.get("components", ()) else "fact.not_trained"
            role = words("fact.trained") if component in trained else words(kept, run=start.get("run", ""))
            found[words(f"fact.{component}")] = words("fact.model", model=model["name"], role=role)
    if start:
        rounds = words("count.rounds", n=start["rounds"])
        found[words("fact.start")] = words("fact.of_start", run=start["run"], rounds=rounds, scenario=start["scenario"])
    return found


def _delivered_to(run: RunFolder, sites: Sequence[str], words: Words) -> str:
    reached = read_json(run.path / "delivery.json")["delivered_to"]
    missed = [site for site in sites if site not in reached]
    told = words.listed(reached) or words("fact.no_site")
    return words("fact.missed", reached=told, missed=words.listed(missed)) if missed else told


def duration(seconds: float, words: Words = ENGLISH) -> str:
    """Return a time in words.

    >>> duration(11.1), duration(75), duration(3725)
    ('11 s', '1 min 15 s', '1 h 02 min')
    """
    whole = round(seconds)
    if whole < 60:
        return words("time.seconds", seconds=whole)
    if whole < 3600:
        return words("time.minutes", minutes=whole // 60, seconds=f"{whole % 60:02d}")
    return words("time.hours", hours=whole // 3600, minutes=f"{whole % 3600 // 60:02d}")
