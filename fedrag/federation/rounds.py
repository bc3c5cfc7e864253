"""What the server does: greet the sites, then round after round ask, fold, step and checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fedrag.components.state import initial_state
from fedrag.components.traffic import state_of_round
from fedrag.config.averaging import averaging_of
from fedrag.config.learning_rates import rates_of_round
from fedrag.config.scenario import Config
from fedrag.config.schedule import (
    components_of,
    is_validated,
    rounds_training,
    sites_asked,
    sites_needed,
    trained_components,
)
from fedrag.dp.site_noise import WARNING, SiteNoise, logged, noised_steps, site_noise
from fedrag.errors import MessageError, QuorumError
from fedrag.federation.exchange import Federation, KnownSite, ask
from fedrag.federation.fold import Folded, fold_replies
from fedrag.federation.greeting import Greeting
from fedrag.federation.lora_factors import frozen_factor
from fedrag.federation.messages import DELIVER, Request, array_bytes, request_content
from fedrag.federation.rule_advice import LIMIT, rule_to_try
from fedrag.federation.rules import refuse_beside_own_rule
from fedrag.federation.scoring import ask_diagnosis, ask_scores
from fedrag.federation.secure_exchange import SumGivenUpError
from fedrag.federation.secure_fold import NOT_MEASURED, fold_masked
from fedrag.federation.server_optimizer import Memory, server_step
from fedrag.federation.taking_part import choose_sites, greet_sites
from fedrag.federation.update import add, norm
from fedrag.runs.checkpoint import Checkpoint
from fedrag.runs.run_folder import Moment
from fedrag.seeding import derive_seed
from fedrag.types import Component, State


def run_rounds(federation: Federation) -> State:
    """Run all rounds that are left and return the result; a run that was interrupted goes on after its last checkpoint.

    Raises:
        QuorumError: Too few sites gave a valid reply; the last checkpoint stands.
        ConfigError: The scenario trains a component that is not known.
    """
    config, run, display = federation.config, federation.run, federation.display
    _prepare(federation)
    checkpoint, warnings = run.load_checkpoint()
    for warning in warnings:
        display.say(warning)
    if checkpoint is None:
        new = initial_state(config, trained_components(config.federation), federation.components)
        checkpoint = Checkpoint(0, new | federation.start, {}, {})
        run.save_checkpoint(checkpoint, {})
    elif checkpoint.round_number:
        display.say(f"going on after round {checkpoint.round_number}")
    left = range(checkpoint.round_number + 1, config.federation.rounds + 1)
    undelivered = config.federation.deliver and not run.is_delivered
    if left or undelivered:
        sites = greet_sites(federation)
        run.record_sites({site.name: _told(site.greeting) for site in sites})
        federation.on_round()
        if not checkpoint.round_number and "before" not in run.told_diagnoses:
            _diagnose(federation, "before", checkpoint.state, sites)
        checkpoint = _with_start_scored(federation, checkpoint, sites)
        for round_number in left:
            if round_number in federation.idle_rounds:
                checkpoint = _pass_round(federation, checkpoint, round_number)
            else:
                checkpoint = _run_round(federation, checkpoint, sites, round_number)
            federation.on_round()
        if left or "after" not in run.told_diagnoses:  # a finished run that goes on is asked again
            _diagnose(federation, "after", result_of(config, checkpoint), sites)
        if undelivered:
            run.record_delivery(deliver(federation, sites, result_of(config, checkpoint)))
    return result_of(config, checkpoint)


def _prepare(federation: Federation) -> None:
    """Refuse a rule beside settings that it cannot go with, and say what a secure sum hides."""
    config = federation.config
    if federation.rule is not None:
        refuse_beside_own_rule(config.federation, trained_components(config.federation))
    if config.federation.secure:
        federation.display.say(NOT_MEASURED)
    if config.simulation.site_noise.is_on:
        federation.display.say(WARNING)


def _told(greeting: Greeting) -> dict[str, Any]:
    return {"version": greeting.version, "counts": greeting.counts, "policy": greeting.policy}


def result_of(config: Config, checkpoint: Checkpoint) -> State:
    """Return the tensors that count: the last, or per component the best on validation, which may be the first."""
    if config.federation.keep == "last":
        return checkpoint.state
    return {c: checkpoint.best.get(c, tensors) for c, tensors in checkpoint.state.items()}


def _run_round(
    federation: Federation, checkpoint: Checkpoint, sites: Sequence[KnownSite], round_number: int
) -> Checkpoint:
    started = time.monotonic()
    config = federation.config
    components = components_of(config.federation, round_number)
    able = [site for site in sites if federation.can_train(site, components)]
    if not able:
        raise QuorumError(f"round {round_number}: no site has questions that train the {' and the '.join(components)}")
    noise = _site_noise(federation, len(sites), len(able), round_number)
    chosen, needed = _chosen(federation, able, noise, round_number)
    request = _train_request(federation, checkpoint.state, components, round_number)
    content = request_content(request)
    try:
        if config.federation.secure:
            folded = fold_masked(federation, request, content, chosen, needed)
        else:
            folded = fold_replies(federation, request, content, chosen, needed, noise)
    except SumGivenUpError as error:
        federation.display.say(f"{error}: it is passed now")
        return _pass_round(federation, checkpoint, round_number)
    checkpoint = _with_step(config, checkpoint, folded, round_number)
    scores = _scores(federation, checkpoint.state, components, sites, round_number)
    checkpoint = _with_best(config, checkpoint, scores)
    record = {
        "round": round_number,
        "components": list(components),
        "learning_rate": rates_of_round(config, components, round_number),
        "seconds": round(time.monotonic() - started, 3),
        "bytes_to_each_site": array_bytes(content),
        "asked": [site.name for site in chosen],
        "sites": folded.sites,
        "left_out": folded.left_out,
        **({"late": folded.late} if config.federation.overselect else {}),
        "weights_cut": folded.weights_cut,
        "update_norm": {c: norm(difference) for c, difference in folded.difference.items()},
        "aggregation_error": folded.errors,
        **({"together": folded.together} if config.federation.secure else {}),
        **({"site_noise": logged(noise, len(sites), len(components))} if noise else {}),
        "validation": scores,
    }
    _advise(federation, folded.errors, len(folded.sites))
    federation.run.save_checkpoint(checkpoint, record)
    federation.display.say(round_line(record, config.federation.rounds))
    return checkpoint


def _chosen(
    federation: Federation, able: Sequence[KnownSite], noise: SiteNoise | None, round_number: int
) -> tuple[list[KnownSite], int]:
    """Return the sites that are asked, and with how many replies the round closes."""
    config = federation.config
    if noise:  # the epsilon is that of a draw by chance, of which all count
        drawn = [able[row] for row in noise.draw()]
        return drawn, len(drawn)
    asked = choose_sites(
        able, sites_asked(config.federation, len(able)), derive_seed(config.seed, round_number, "sites")
    )
    return asked, sites_needed(config.federation, len(able))


def _site_noise(federation: Federation, clients: int, able: int, round_number: int) -> SiteNoise | None:
    """Return the noise of a round that covers whole clients, after that of the rounds before; None: there is none."""
    if not federation.config.simulation.site_noise.is_on:
        return None
    return site_noise(federation.config, clients, able, noised_steps(federation.run.rounds()), round_number)


def _advise(federation: Federation, errors: dict[Component, float], sites: int) -> None:
    """Say which rule to try, once for each component."""
    for component, error in errors.items():
        sentence = rule_to_try(federation.config.federation, component, error, sites)
        if sentence and not _was_advised(federation, component):
            federation.display.say(sentence)


def _was_advised(federation: Federation, component: Component) -> bool:
    return any(record["aggregation_error"].get(component, 0.0) > LIMIT for record in federation.run.rounds())


def _pass_round(federation: Federation, checkpoint: Checkpoint, round_number: int) -> Checkpoint:
    """Let a round pass that trains nobody."""
    passed = replace(checkpoint, round_number=round_number)
    record = {
        "round": round_number,
        "components": [],
        "learning_rate": {},
        "seconds": 0.0,
        "bytes_to_each_site": 0,
        "asked": [],
        **{name: {} for name in ("sites", "left_out", "weights_cut", "update_norm", "aggregation_error", "validation")},
    }
    federation.run.save_checkpoint(passed, record)
    return passed


def _train_request(
    federation: Federation, state: State, components: tuple[Component, ...], round_number: int
) -> Request:
    """Send what the round needs: a component may use another one's state too."""
    config = federation.config
    needs = state_of_round(config, components, state, federation.components)
    past = {c: rounds_training(config.federation, c, before=round_number) for c in state}
    return Request(
        scenario=config.to_toml(),
        round_number=round_number,
        state={component: tensors for component, tensors in state.items() if component in needs},
        components=components,
        past_rounds=past,
        deadline_s=config.federation.deadline_s,
        wire=config.federation.wire,
        frozen={c: frozen_factor(averaging_of(config.federation, c).rule, past[c]) for c in components},
    )


def _scores(
    federation: Federation,
    state: State,
    components: tuple[Component, ...],
    sites: Sequence[KnownSite],
    round_number: int,
) -> dict[Component, float]:
    """Ask for scores after the rounds that are to be validated."""
    if not is_validated(federation.config.federation, round_number):
        return {}
    return ask_scores(federation, state, components, sites, round_number)


def _with_start_scored(federation: Federation, checkpoint: Checkpoint, sites: Sequence[KnownSite]) -> Checkpoint:
    """Score the untouched models before the first round, so that the best can be they."""
    config = federation.config
    if config.federation.keep != "best" or checkpoint.round_number or checkpoint.best_scores:
        return checkpoint
    components = trained_components(config.federation)
    scores = ask_scores(federation, checkpoint.state, components, sites, 0)
    checkpoint = _with_best(config, checkpoint, scores)
    federation.run.save_checkpoint(checkpoint, {})
    if scores:
        told = ", ".join(f"{component} validation {score:.4f}" for component, score in scores.items())
        federation.display.say(f"before the first round: {told}")
    return checkpoint


def _diagnose(federation: Federation, moment: Moment, state: State, sites: Sequence[KnownSite]) -> None:
    """Ask the sites why answers are wrong, where the scenario says so, and record what they tell."""
    run, settings = federation.run, federation.config.federation
    if settings.diagnose:
        number = 0 if moment == "before" else settings.rounds
        run.record_diagnosis(moment, ask_diagnosis(federation, state, sites, number))


def _with_step(config: Config, checkpoint: Checkpoint, folded: Folded, round_number: int) -> Checkpoint:
    """Move each component that has an averaged difference, by the server's optimizer where there is one."""
    state, momentum, variance = dict(checkpoint.state), dict(checkpoint.momentum), dict(checkpoint.variance)
    for component, change in folded.difference.items():
        optimizer = averaging_of(config.federation, component).server_optimizer
        if optimizer == "none":
            moved = add({name: state[component][name] for name in change}, change)
            state[component] = {**state[component], **moved, **folded.sides.get(component, {})}
            continue
        memory = Memory(momentum.get(component, {}), variance.get(component, {}))
        state[component], memory = server_step(state[component], change, optimizer, config.federation.server, memory)
        momentum[component], variance[component] = memory.momentum, memory.variance
    return replace(checkpoint, round_number=round_number, state=state, momentum=momentum, variance=variance)


def _with_best(config: Config, checkpoint: Checkpoint, scores: dict[str, float]) -> Checkpoint:
    """Keep the tensors of each component that scored better than all before."""
    best, best_scores = dict(checkpoint.best), dict(checkpoint.best_scores)
    if config.federation.keep == "best":
        for component, tensors in checkpoint.state.items():
            score = scores.get(component)
            if score is not None and score > best_scores.get(component, -math.inf):
                best[component], best_scores[component] = tensors, score
    return replace(checkpoint, best=best, best_scores=best_scores)


def deliver(federation: Federation, sites: Sequence[KnownSite], result: State) -> list[str]:
    """Send the result to sites and return who took it; one that cannot be reached does not undo the run."""
    config, display = federation.config, federation.display
    request = Request(config.to_toml(), config.federation.rounds, result, deadline_s=config.federation.deadline_s)
    reached: list[str] = []
    for site, reply in ask(federation.grid, DELIVER, request, request_content(request), sites):
        if isinstance(reply, MessageError):
            display.say(f"{site.name} did not take the result: {reply}")
        else:
            reached.append(site.name)
    display.say(f"the result was delivered to {len(reached)} of {len(sites)} sites")
    return sorted(reached)


def round_line(record: dict[str, Any], rounds: int) -> str:
    """Return a logged round as one line; `rounds` is how many the run has."""
    parts = []
    for component in record["components"]:
        told = [*record["sites"].values(), record.get("together", {})]
        losses = [numbers[f"{component}.loss"] for numbers in told if f"{component}.loss" in numbers]
        if losses:
            parts.append(f"{component} loss {sum(losses) / len(losses):.4f}")
    parts += [f"{c} validation {score:.4f}" for c, score in record["validation"].items()]
    spent = [s["privacy.epsilon"] for s in record["sites"].values() if "privacy.epsilon" in s]
    parts += [f"epsilon at most {max(spent):.2f}"] if spent else []
    late = f" ({len(record['late'])} late)" if record.get("late") else ""
    parts = [f"{len(record['sites'])} of {len(record['asked'])} sites{late}", *parts, f"{record['seconds']:.0f} s"]
    return f"round {record['round']}/{rounds}: {', '.join(parts)}"
