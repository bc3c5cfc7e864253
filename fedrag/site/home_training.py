"""Trains a federated result on at one site, and keeps what its own validation questions say is better there.

Nothing of it leaves the site. It is one more round, alone: without noise, since nobody else learns of it, and without
the test questions, which are out of its reach. By no measure of its validation is the site then worse off than with the
federated result; with few validation questions, a gain may be chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components, find_component
from fedrag.components.work import Workbench
from fedrag.config.averaging import ONE_SITE
from fedrag.config.privacy_settings import PrivacyConfig
from fedrag.config.scenario import Config
from fedrag.config.schedule import trained_components
from fedrag.errors import TrainingDiverged
from fedrag.federation.messages import Request
from fedrag.federation.update import add, unflatten
from fedrag.runs.home_results import HomeScore, TrainedAtHome
from fedrag.site.steps import begin_work, train_site
from fedrag.types import COMPONENTS, Array, Component, State, Tensors

_EVERY_ROUND = ("generator", "retriever", "joint", "iterate")
"""Schedules of which any round trains all that the run trains."""
_DIVERGED = "its training diverged"


@dataclass(frozen=True, slots=True)
class _Mean:
    """A mean over so many questions or tokens."""

    value: float
    count: int


def train_at_home(
    bench: Workbench, state: State, epochs: int, components: Components = SHIPPED, allowed: Sequence[Component] = ()
) -> TrainedAtHome:
    """Train a federated result on at a site, and decide component by component what the site keeps.

    The retriever is decided first, since the generator answers from what it finds. A component keeps its own weights
    where its validation rises and that of no other trained component falls.

    Args:
        bench: What the site works with; its scenario is that of the run.
        state: The federated result, by component.
        epochs: Passes over the site's questions.
        components: What can be trained, by name.
        allowed: Components that may be trained here; empty: all that the run trains.
    """
    config = home_config(bench.config, epochs)
    names = tuple(c for c in trained_components(config.federation) if c in state and (not allowed or c in allowed))
    home = replace(bench, config=config, site=replace(bench.site, test=()))
    request = Request(config.to_toml(), bench.config.federation.rounds + 1, state)  # a round, so seeds, of its own
    measured = _measure(home, request, names, components)
    names = tuple(name for name in names if measured[name].count)
    if not names:
        return TrainedAtHome(why="it has no validation questions by which to decide")
    try:
        reply = train_site(home, replace(request, components=names), components)
    except TrainingDiverged:
        return TrainedAtHome(why=_DIVERGED)
    own = {c: _moved(request, c, reply.update[c]) for c in reversed(names) if c in reply.update}
    if not own:
        return TrainedAtHome(why="it has no questions to train on")
    kept: State = {}
    scores: dict[Component, HomeScore] = {}
    for name, tensors in own.items():
        tried = _measure(home, replace(request, state={**state, **kept, name: tensors}), names, components)
        if not all(math.isfinite(mean.value) for mean in tried.values()):
            return TrainedAtHome(why=_DIVERGED)
        gains = tried[name].value > measured[name].value and all(
            tried[other].value >= measured[other].value for other in names
        )
        scores[name] = HomeScore(measured[name].value, tried[name].value, measured[name].count, gains)
        if gains:
            kept, measured = {**kept, name: tensors}, tried
    return TrainedAtHome(kept, scores)


def home_config(config: Config, epochs: int) -> Config:
    """Return a scenario's settings for one round at home: its own learning rates from their peak, nobody to average."""
    schedule = config.federation.schedule
    alone = {"rounds": 1, "schedule": schedule if schedule in _EVERY_ROUND else "joint", "proximal_mu": 0.0}
    changed: dict[str, Any] = {name: getattr(config, name).model_copy(update={"epochs": epochs}) for name in COMPONENTS}
    changed["federation"] = config.federation.model_copy(update={**ONE_SITE, **alone, "wire": "float32"})
    return config.model_copy(update={**changed, "privacy": PrivacyConfig()})


def _moved(request: Request, component: Component, update: Array) -> Tensors:
    """Return a component's tensors moved by an update; what nobody trains is as it was received."""
    return {
        **request.state[component],
        **add(request.trained(component), unflatten(update, request.manifest(component))),
    }


def _measure(
    bench: Workbench, request: Request, names: Sequence[Component], components: Components
) -> Mapping[Component, _Mean]:
    """Return the mean of each component's validation with the state of a request."""
    if not bench.site.validation:
        return {name: _Mean(0.0, 0) for name in names}
    work = begin_work(bench, request)
    sums = {name: find_component(components, name).steps().validate(work) for name in reversed(names)}
    return {name: _Mean(total / count if count else 0.0, count) for name, (total, count) in sums.items()}
