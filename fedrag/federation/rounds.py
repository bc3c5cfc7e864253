"""What the server does: greet the sites, then round after round ask, fold, step and checkpoint."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedrag.config import Config, components_of, rounds_training, trained_components
from fedrag.display import Display, Quiet
from fedrag.errors import MessageError, QuorumError
from fedrag.federation.aggregation import Aggregator, ExactMean, Rule, collect_with
from fedrag.federation.lora_error import AggregationError
from fedrag.federation.messages import (
    DELIVER,
    GREET,
    TRAIN,
    VALIDATE,
    Greeting,
    Reply,
    Request,
    open_greeting,
    open_reply,
    request_content,
)
from fedrag.federation.update import Manifest, add, manifest_of, norm, unflatten
from fedrag.runs import Checkpoint, RunFolder
from fedrag.seeding import derive_seed
from fedrag.types import Component, State

POLL_S = 0.05
SAFETY_S = 60.0  # a site stops at the deadline; the server waits a little longer for what it then says
IDS_PER_POLL = 4  # Flower fetches every ready reply of a poll into memory at once


@dataclass(frozen=True, slots=True)
class KnownSite:
    """A site that answered the greeting. Its node id is an address: never shown, never a seed."""

    node_id: int
    greeting: Greeting

    @property
    def name(self) -> str:
        """The site's name."""
        return self.greeting.name


@dataclass(slots=True)
class Folded:
    """What one round's replies came to.

    Attributes:
        difference: The weighted mean difference of each component.
        sites: What each site told, by name, for the log.
        left_out: Why a site's reply was not used, by name.
        errors: Aggregation error of each component with LoRA pairs.
    """

    difference: State = field(default_factory=dict)
    sites: dict[str, dict[str, float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)


def run_rounds(
    grid: Grid,
    config: Config,
    run: RunFolder,
    start: Callable[[], State],
    *,
    rule: Rule | None = None,
    display: Display = Quiet(),
) -> State:
    """Run all rounds that are left and return the result.

    Args:
        grid: The only door to the sites.
        config: The scenario.
        run: Where checkpoints and the log go; a run that was interrupted goes on after its last one.
        start: Gives the state before the first round.
        rule: An aggregation rule of one's own instead of the weighted mean.
        display: Shows lines and progress.

    Raises:
        QuorumError: Too few sites gave a valid reply; the last checkpoint stands.
    """
    checkpoint, warnings = run.load_checkpoint()
    for warning in warnings:
        display.say(warning)
    if checkpoint is None:
        checkpoint = Checkpoint(0, start(), {}, {})
        run.save_checkpoint(checkpoint, {})
    elif checkpoint.round_number:
        display.say(f"going on after round {checkpoint.round_number}")
    if checkpoint.round_number < config.federation.rounds:
        sites = greet_sites(grid, config, display)
        for round_number in range(checkpoint.round_number + 1, config.federation.rounds + 1):
            checkpoint = _run_round(grid, config, run, checkpoint, sites, round_number, rule, display)
        if config.federation.deliver:
            _deliver(grid, config, sites, result_of(config, checkpoint), display)
    return result_of(config, checkpoint)


def result_of(config: Config, checkpoint: Checkpoint) -> State:
    """Return the tensors that count: the last, or per component the best on validation."""
    if config.federation.keep == "last":
        return checkpoint.state
    return {c: checkpoint.best.get(c, tensors) for c, tensors in checkpoint.state.items()}


def greet_sites(grid: Grid, config: Config, display: Display) -> list[KnownSite]:
    """Greet every node until enough have answered, and return the sites that can take part, by name.

    Raises:
        QuorumError: Fewer than `min_sites` can take part before the time is up.
    """
    settings = config.federation
    end = time.monotonic() + settings.greeting_timeout_s
    request = Request(config.to_toml())
    known: dict[int, KnownSite | None] = {}
    while True:
        new = [node_id for node_id in grid.get_node_ids() if node_id not in known]
        messages = [grid.create_message(request_content(request), GREET, node, "0") for node in new]
        for message, node_id in replies_as_they_come(grid, messages, max(0.0, end - time.monotonic())):
            known[node_id] = _open_greeting(message, node_id, len(known), display)
        sites = sorted((site for site in known.values() if site), key=lambda site: site.name)
        enough = len(known) >= len(list(grid.get_node_ids())) and len(sites) >= settings.min_sites
        if enough or time.monotonic() > end:
            break
        time.sleep(min(1.0, max(0.0, end - time.monotonic())))
    able = _who_can_train(sites, display)
    if len(able) < settings.min_sites:
        raise QuorumError(
            f"{len(able)} of at least {settings.min_sites} sites can take part after "
            f"{settings.greeting_timeout_s:.0f} s"
        )
    return able


def choose_sites(sites: Sequence[KnownSite], fraction: float, seed: int) -> list[KnownSite]:
    """Draw the sites of one round, in order of name; at least one."""
    count = max(1, math.ceil(fraction * len(sites) - 1e-9))
    return sorted(random.Random(seed).sample(list(sites), count), key=lambda site: site.name)


def replies_as_they_come(
    grid: Grid, messages: Sequence[Message], timeout_s: float
) -> Iterator[tuple[Message, int]]:
    """Push messages and yield (reply, node id) as replies arrive, until all are there or time is up.

    Replies are matched by the id of the message they answer: a lost node's error names no node.
    """
    nodes = [message.metadata.dst_node_id for message in messages]
    waiting = dict(zip(grid.push_messages(messages), nodes, strict=True))
    end = time.monotonic() + timeout_s
    while waiting:
        arrived = False
        ids = list(waiting)
        for start in range(0, len(ids), IDS_PER_POLL):
            for reply in grid.pull_messages(ids[start : start + IDS_PER_POLL]):
                arrived = True
                yield reply, waiting.pop(reply.metadata.reply_to_message_id)
        if time.monotonic() > end:
            return
        if not arrived:
            time.sleep(POLL_S)


def _run_round(
    grid: Grid,
    config: Config,
    run: RunFolder,
    checkpoint: Checkpoint,
    sites: Sequence[KnownSite],
    round_number: int,
    rule: Rule | None,
    display: Display,
) -> Checkpoint:
    started = time.monotonic()
    chosen = choose_sites(sites, config.federation.fraction, derive_seed(config.seed, round_number, "sites"))
    components = components_of(config.federation, round_number)
    request = _train_request(config, checkpoint.state, components, round_number)
    content = request_content(request)
    folded = _fold_replies(grid, config, request, content, chosen, rule, display)
    state = {c: add(t, folded.difference[c]) if c in folded.difference else t for c, t in checkpoint.state.items()}
    scores = _validate(grid, config, state, components, sites, round_number)
    checkpoint = _with_best(config, checkpoint, state, scores, round_number)
    record = {
        "round": round_number,
        "components": list(components),
        "seconds": round(time.monotonic() - started, 3),
        "bytes_to_each_site": _array_bytes(content),
        "asked": [site.name for site in chosen],
        "sites": folded.sites,
        "left_out": folded.left_out,
        "update_norm": {c: norm(difference) for c, difference in folded.difference.items()},
        "aggregation_error": folded.errors,
        "validation": scores,
    }
    run.save_checkpoint(checkpoint, record)
    display.say(_round_line(record, config.federation.rounds))
    return checkpoint


def _train_request(
    config: Config, state: State, components: tuple[Component, ...], round_number: int
) -> Request:
    """Send what the round needs: retrieval and answer scores use the other component's state too."""
    needs = set(components)
    if "generator" in components:
        needs.add("retriever")
    if "retriever" in components and config.retriever.uses_lsr and config.retriever.lsr.scorer == "current":
        needs.add("generator")
    return Request(
        scenario=config.to_toml(),
        round_number=round_number,
        state={component: tensors for component, tensors in state.items() if component in needs},
        components=components,
        past_rounds={c: rounds_training(config.federation, c, before=round_number) for c in state},
        deadline_s=config.federation.deadline_s,
        wire=config.federation.wire,
    )


class _Fold:
    """Folds the valid replies of one round into one difference a component."""

    def __init__(self, config: Config, request: Request, chosen: Sequence[KnownSite], rule: Rule | None) -> None:
        self._config = config
        self._state = request.state
        self.manifests = {c: manifest_of(request.state[c]) for c in request.components}
        self._told = {site.name: max(1, site.greeting.counts.get("train_questions", 1)) for site in chosen}
        self._aggregators = {c: self._aggregator(m, rule) for c, m in self.manifests.items()}
        seed = derive_seed(config.seed, request.round_number, "aggregation error")
        self._errors = {c: AggregationError(m, seed) for c, m in self.manifests.items()}
        self.valid = 0

    def _aggregator(self, manifest: Manifest, rule: Rule | None) -> Aggregator:
        if rule is not None:
            return collect_with(rule, manifest)
        weights = self._told.values() if self._config.federation.weighting == "examples" else [1] * len(self._told)
        return ExactMean(manifest.size, self._config.federation.max_update_norm, sum(weights))

    def add(self, reply: Reply, site: str) -> None:
        """Check what only the server knows, then fold in all components of a reply.

        Raises:
            MessageError: The reply is empty, its count is not what was told, or its norm is too large.
        """
        if not reply.update:
            raise MessageError("its reply holds no update")
        limit = self._config.federation.max_update_norm
        differences = {c: unflatten(flat, self.manifests[c]) for c, flat in reply.update.items()}
        for component, count in reply.num_examples.items():
            if count > self._told[site]:
                raise MessageError(
                    f"it claims {count} {component} examples, but told of {self._told[site]} at the greeting"
                )
            size = norm(differences[component])
            if size > limit:
                raise MessageError(f"its {component} update has norm {size:.3g}, above the limit of {limit:g}")
        for component, flat in reply.update.items():
            by_examples = self._config.federation.weighting == "examples"
            weight = reply.num_examples[component] if by_examples else 1
            self._aggregators[component].add(flat, weight, site)
            self._errors[component].add(add(self._state[component], differences[component]), weight)
        self.valid += 1

    def difference(self) -> State:
        """Return the aggregate of each component that any site trained."""
        return {c: unflatten(self._aggregators[c].result(), m) for c, m in self.manifests.items() if self._any(c)}

    def errors(self, difference: State) -> dict[str, float]:
        """Return the aggregation error of each component with LoRA pairs."""
        found = {c: self._errors[c].result(add(self._state[c], d)) for c, d in difference.items()}
        return {component: error for component, error in found.items() if error is not None}

    def _any(self, component: Component) -> bool:
        return self._aggregators[component].count > 0


def _fold_replies(
    grid: Grid,
    config: Config,
    request: Request,
    content: RecordDict,
    chosen: Sequence[KnownSite],
    rule: Rule | None,
    display: Display,
) -> Folded:
    fold = _Fold(config, request, chosen, rule)
    folded = Folded()
    names = {site.node_id: site.name for site in chosen}
    ttl = request.deadline_s + SAFETY_S
    messages = [
        grid.create_message(content, TRAIN, site.node_id, str(request.round_number), ttl) for site in chosen
    ]
    task = f"round {request.round_number}/{config.federation.rounds}"
    display.progress(task, 0, len(chosen))
    for done, (message, node_id) in enumerate(replies_as_they_come(grid, messages, ttl), start=1):
        name = names[node_id]
        try:
            reply = open_reply(message, fold.manifests, request.wire)
            fold.add(reply, name)
        except MessageError as error:
            folded.left_out[name] = str(error)
            display.say(f"{name} is left out of round {request.round_number}: {error}")
        else:
            folded.sites[name] = _told(reply, message)
        display.progress(task, done, len(chosen))
    for name in names.values():
        if name not in folded.sites and name not in folded.left_out:
            folded.left_out[name] = f"no reply within {request.deadline_s:g} s"
            display.say(f"{name} is left out of round {request.round_number}: {folded.left_out[name]}")
    _require_quorum(config, request.round_number, fold.valid, len(chosen), folded.left_out)
    folded.sites = dict(sorted(folded.sites.items()))
    folded.difference = fold.difference()
    folded.errors = fold.errors(folded.difference)
    return folded


def _require_quorum(
    config: Config, round_number: int, valid: int, asked: int, left_out: dict[str, str]
) -> None:
    needed = max(1, math.ceil(config.federation.quorum * asked - 1e-9))
    if valid < needed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(left_out.items()))
        raise QuorumError(
            f"round {round_number}: {valid} of {asked} sites gave a valid reply, {needed} are needed ({reasons})"
        )


def _validate(
    grid: Grid,
    config: Config,
    state: State,
    components: tuple[Component, ...],
    sites: Sequence[KnownSite],
    round_number: int,
) -> dict[str, float]:
    """Ask the sites for sums over their validation questions; return a mean for each component."""
    every = config.federation.validate_every or (1 if config.federation.keep == "best" else 0)
    last = round_number == config.federation.rounds
    if not every or (round_number % every and not last):
        return {}
    able = [site for site in sites if site.greeting.counts.get("validation_questions")]
    request = Request(
        config.to_toml(),
        round_number,
        state,
        components,
        deadline_s=config.federation.deadline_s,
        wire=config.federation.wire,
    )
    content = request_content(request)
    messages = [grid.create_message(content, VALIDATE, site.node_id, str(round_number)) for site in able]
    sums: dict[str, float] = {}
    for message, _ in replies_as_they_come(grid, messages, request.deadline_s):
        try:
            metrics = open_reply(message, {}, request.wire).metrics
        except MessageError:
            continue
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + value
    return {c: sums[f"{c}.sum"] / sums[f"{c}.count"] for c in components if sums.get(f"{c}.count")}


def _with_best(
    config: Config, checkpoint: Checkpoint, state: State, scores: dict[str, float], round_number: int
) -> Checkpoint:
    best, best_scores = dict(checkpoint.best), dict(checkpoint.best_scores)
    if config.federation.keep == "best":
        for component, tensors in state.items():
            score = scores.get(component)
            if score is not None and score > best_scores.get(component, -math.inf):
                best[component], best_scores[component] = tensors, score
    return Checkpoint(round_number, state, best, best_scores)


def _deliver(
    grid: Grid, config: Config, sites: Sequence[KnownSite], result: State, display: Display
) -> None:
    """Send the result to every site; one that cannot be reached does not undo the run."""
    request = Request(config.to_toml(), config.federation.rounds, result, deadline_s=config.federation.deadline_s)
    content = request_content(request)
    messages = [grid.create_message(content, DELIVER, site.node_id, "delivery") for site in sites]
    names = {site.node_id: site.name for site in sites}
    reached: set[str] = set()
    for message, node_id in replies_as_they_come(grid, messages, request.deadline_s):
        try:
            open_reply(message, {}, request.wire)
            reached.add(names[node_id])
        except MessageError as error:
            display.say(f"{names[node_id]} did not take the result: {error}")
    display.say(f"the result was delivered to {len(reached)} of {len(sites)} sites")


def _open_greeting(message: Message, node_id: int, number: int, display: Display) -> KnownSite | None:
    try:
        return KnownSite(node_id, open_greeting(message))
    except MessageError as error:
        display.say(f"client {number + 1} takes no part: {error}")
        return None


def _who_can_train(sites: Sequence[KnownSite], display: Display) -> list[KnownSite]:
    """Leave out, by name, sites without training questions, double names and other base models."""
    able: list[KnownSite] = []
    for site in sites:
        if able and able[-1].name == site.name:
            display.say(f"a second client calls itself {site.name}; it takes no part")
        elif not site.greeting.counts.get("train_questions"):
            display.say(f"{site.name} sits out: it has no training questions")
        elif able and site.greeting.tensor_hashes != able[0].greeting.tensor_hashes:
            display.say(f"{site.name} takes no part: its base models have other tensors than {able[0].name}'s")
        else:
            able.append(site)
    return able


def _told(reply: Reply, message: Message) -> dict[str, Any]:
    return {
        **{f"{component}.examples": count for component, count in reply.num_examples.items()},
        **{name: round(value, 6) for name, value in sorted(reply.metrics.items())},
        "bytes": _array_bytes(message.content),
    }


def _array_bytes(content: RecordDict) -> int:
    return sum(len(array.data) for record in content.array_records.values() for array in record.values())


def _round_line(record: dict[str, Any], rounds: int) -> str:
    parts = []
    for component in record["components"]:
        losses = [s[f"{component}.loss"] for s in record["sites"].values() if f"{component}.loss" in s]
        if losses:
            parts.append(f"{component} loss {sum(losses) / len(losses):.4f}")
    parts += [f"{c} validation {score:.4f}" for c, score in record["validation"].items()]
    sites = f"{len(record['sites'])} of {len(record['asked'])} sites"
    return f"round {record['round']}/{rounds}: {sites}, {', '.join(parts)}, {record['seconds']:.0f} s"
