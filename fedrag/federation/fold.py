"""Folds the replies of one round into one difference a component; memory does not grow with the sites."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import RecordDict

from fedrag.components.spec import find_component
from fedrag.config.averaging import averaging_of
from fedrag.config.scenario import Config
from fedrag.dp.site_noise import NoisedMean, SiteNoise
from fedrag.errors import MessageError, QuorumError
from fedrag.federation.aggregation import Aggregator, Rule
from fedrag.federation.claims import Claims
from fedrag.federation.exchange import Federation, KnownSite, LateError, ask
from fedrag.federation.lora_error import AggregationError
from fedrag.federation.lora_rules import SideAdapter
from fedrag.federation.messages import TRAIN, Reply, Request
from fedrag.federation.norm_limit import too_large
from fedrag.federation.rules import aggregator_of
from fedrag.federation.update import add, manifest_of, norm, unflatten
from fedrag.seeding import derive_seed
from fedrag.types import Component, State, Tensors


@dataclass(slots=True)
class Folded:
    """What one round's replies came to.

    Attributes:
        difference: The weighted mean difference of each component.
        sites: What each site told, by name, for the log.
        left_out: Why a site's reply was not used, by name.
        late: How many seconds a site had worked when the round closed without it, by name.
        weights_cut: What a site counted for, by name and component, where it claimed more.
        errors: Aggregation error of each component with LoRA pairs.
        sides: New side adapter of each component whose rule is "exact".
        together: What all sites told together, where a secure sum hides what each did.
    """

    difference: State = field(default_factory=dict)
    sites: dict[str, dict[str, float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    late: dict[str, float] = field(default_factory=dict)
    weights_cut: dict[str, dict[Component, int]] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    sides: State = field(default_factory=dict)
    together: dict[str, float] = field(default_factory=dict)


def fold_replies(
    federation: Federation,
    request: Request,
    content: RecordDict,
    chosen: Sequence[KnownSite],
    needed: int,
    noise: SiteNoise | None = None,
) -> Folded:
    """Ask the chosen sites to train and fold their replies as they come.

    Args:
        federation: What the rounds work with.
        request: What is asked.
        content: The request as it goes out.
        chosen: The sites of this round.
        needed: With how many valid replies the round closes; of more that come, none is used.
        noise: Covers whole sites; None: there is none.

    Raises:
        QuorumError: Too few gave a valid reply.
    """
    config, display = federation.config, federation.display
    claims = _claims(federation, request, chosen)
    fold = _Fold(config, request, chosen, claims, federation.rule, noise)
    folded = Folded()
    task = f"round {request.round_number}/{config.federation.rounds}"
    display.progress(task, 0, len(chosen))
    began = time.monotonic()
    order = _order_of_asking(config, request, chosen)
    asked = ask(federation.grid, TRAIN, request, content, order, lambda: len(folded.sites) >= needed)
    for done, (site, reply) in enumerate(asked, start=1):
        if isinstance(reply, LateError):
            folded.late[site.name] = round(time.monotonic() - began, 3)
            continue
        try:
            if isinstance(reply, MessageError):
                raise reply
            fold.add(reply, site.name)
        except MessageError as error:
            folded.left_out[site.name] = str(error)
            display.say(f"{site.name} is left out of round {request.round_number}: {error}")
        else:
            folded.sites[site.name] = _told(reply)
            if cut := claims.cut(site.name, reply.num_examples):
                folded.weights_cut[site.name] = cut
                for component, weight in cut.items():
                    display.say(
                        f"{site.name} counts for {weight:,} {component} questions in round {request.round_number}, not "
                        f"for the {reply.num_examples[component]:,} that it claims: {claims.why(site.name, weight)}"
                    )
        display.progress(task, done, len(chosen))
    for name, reason in fold.take_held().items():
        del folded.sites[name]
        folded.left_out[name] = reason
        display.say(f"{name} is left out of round {request.round_number}: {reason}")
    if folded.late:
        folded.late = dict(sorted(folded.late.items()))
        display.say(f"round {request.round_number} closed with {needed} replies; late: {', '.join(folded.late)}")
    _require_quorum(config, request.round_number, fold.valid, needed, folded.left_out)
    folded.sites = dict(sorted(folded.sites.items()))
    folded.left_out = dict(sorted(folded.left_out.items()))
    folded.weights_cut = {name: cut for name, cut in sorted(folded.weights_cut.items()) if name in folded.sites}
    folded.difference = fold.difference()
    folded.errors = fold.errors(folded.difference)
    folded.sides = fold.sides(folded.difference)
    return folded


class _Fold:
    """Folds the valid replies of one round into one difference a component."""

    def __init__(
        self,
        config: Config,
        request: Request,
        chosen: Sequence[KnownSite],
        claims: Claims,
        rule: Rule | None,
        noise: SiteNoise | None = None,
    ) -> None:
        self._config = config
        self._state = request.state
        self._manifests = {c: request.manifest(c) for c in request.components}
        self._averaging = {c: averaging_of(config.federation, c) for c in request.components}
        self._told = {site.name: max(1, site.greeting.counts.get("train_questions", 1)) for site in chosen}
        self._claims = claims
        self._noise = noise
        self._aggregators: dict[Component, Aggregator] = {
            c: NoisedMean(m.size, noise)
            if noise
            else aggregator_of(config.federation, c, request.state[c], m, self._weight_sum(c), rule)
            for c, m in self._manifests.items()
        }
        seed = derive_seed(config.seed, request.round_number, "aggregation error")
        self._errors = {c: AggregationError(manifest_of(request.state[c]), seed) for c in request.components}
        self._sides = {
            c: SideAdapter(request.state[c], m)
            for c, m in self._manifests.items()
            if self._averaging[c].rule == "exact"
        }
        self._trained: set[Component] = set(request.components) if noise else set()  # noise covers who trained
        self._held: dict[str, Reply] = {}
        self._norms: dict[str, dict[Component, float]] = {}
        self.valid = 0

    def _weight_sum(self, component: Component) -> int:
        return sum(self._claims.weight(site, component, told) for site, told in self._told.items())

    def add(self, reply: Reply, site: str) -> None:
        """Check what only the server knows, then fold in all components of a reply, or none.

        Where its norm is compared with the median of the round, it is held until all replies are there.

        Raises:
            MessageError: The reply is empty, its count is not what was told, or its norm is too large.
        """
        if not reply.update:
            raise MessageError("its reply holds no update")
        norms: dict[Component, float] = {}
        for component, count in reply.num_examples.items():
            if count > self._told[site]:
                raise MessageError(
                    f"it claims {count} {component} examples, but told of {self._told[site]} at the greeting"
                )
            size = norm({component: reply.update[component]})
            limit = self._averaging[component].max_update_norm
            norms[component] = size
            if size > limit:
                raise MessageError(f"its {component} update has norm {size:.3g}, above the limit of {limit:g}")
        if self._config.federation.max_norm_of_median:
            self._held[site], self._norms[site] = reply, norms
        else:
            self._take(reply, site)

    def take_held(self) -> dict[str, str]:
        """Fold in what was held and is not too large for its round; return why the others are left out, by site."""
        reasons = too_large(self._norms, self._config.federation.max_norm_of_median)
        for site, reply in self._held.items():
            if site not in reasons:
                self._take(reply, site)
        return reasons

    def _take(self, reply: Reply, site: str) -> None:
        differences = {c: unflatten(flat, self._manifests[c]) for c, flat in reply.update.items()}
        for component, flat in reply.update.items():
            weight = self._claims.weight(site, component, reply.num_examples[component])
            self._aggregators[component].add(flat, weight, site)
            self._trained.add(component)
            if component in self._sides:
                self._sides[component].add(differences[component], weight, site)
            self._errors[component].add(self._state[component], differences[component], weight)
        self.valid += 1

    def _full(self, component: Component, difference: Tensors) -> Tensors:
        """Return a component's tensors moved by a difference; frozen ones are those that the sites received."""
        received = self._state[component]
        return {**received, **add({name: received[name] for name in difference}, difference)}

    def difference(self) -> State:
        """Return the aggregate of each component that any site trained."""
        return {c: unflatten(self._aggregators[c].result(), self._manifests[c]) for c in sorted(self._trained)}

    def errors(self, difference: State) -> dict[str, float]:
        """Return the aggregation error of each component whose LoRA factors stand for all that its sites sent.

        Noise on the mean would count as error.
        """
        if self._noise:
            return {}
        found = {c: self._errors[c].result(self._full(c, d)) for c, d in difference.items()}
        return {c: e for c, e in found.items() if e is not None and self._averaging[c].averages_factors}

    def sides(self, difference: State) -> State:
        """Return the new side adapters."""
        return {c: side.result(difference[c]) for c, side in self._sides.items() if c in difference}


def _order_of_asking(config: Config, request: Request, chosen: Sequence[KnownSite]) -> Sequence[KnownSite]:
    """Return the sites in the order in which they are asked: drawn where the first count, so that no name is favoured.

    A grid in one process answers in this order.
    """
    if not config.federation.overselect:
        return chosen
    return random.Random(derive_seed(config.seed, request.round_number, "order")).sample(list(chosen), len(chosen))


def _claims(federation: Federation, request: Request, chosen: Sequence[KnownSite]) -> Claims:
    """Return what the chosen sites told that they learn from, and how much of it is believed."""
    config = federation.config
    specs = {component: find_component(federation.components, component) for component in request.components}
    return Claims(
        {
            component: {site.name: spec.most_examples(site.greeting.counts, config) for site in chosen}
            for component, spec in specs.items()
        },
        {site.name: site.confirmed for site in chosen if site.confirmed},
        config.federation.max_weight_ratio,
        equal=[c for c in request.components if averaging_of(config.federation, c).weighting == "equal"],
    )


def _require_quorum(config: Config, round_number: int, valid: int, asked: int, left_out: dict[str, str]) -> None:
    needed = max(1, math.ceil(config.federation.quorum * asked - 1e-9)) if asked else 0
    if valid < needed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(left_out.items()))
        raise QuorumError(
            f"round {round_number}: {valid} of {asked} sites gave a valid reply, {needed} are needed ({reasons})"
        )


def _told(reply: Reply) -> dict[str, Any]:
    return {
        **{f"{component}.examples": count for component, count in reply.num_examples.items()},
        **{name: round(value, 6) for name, value in sorted(reply.metrics.items())},
        "bytes": reply.n_bytes,
    }
