"""Trains a RAG system on one site's questions: the training that a site of a federation does, without a federation."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from fedrag.api.notebook import default_display
from fedrag.api.rag_system import RagSystem
from fedrag.components.state import initial_state
from fedrag.components.work import Workbench
from fedrag.config.averaging import ONE_SITE
from fedrag.config.scenario import Config
from fedrag.config.schedule import trained_components
from fedrag.display import Display
from fedrag.errors import ConfigError, DataError
from fedrag.federation.messages import Request
from fedrag.federation.refusal_codes import REFUSALS
from fedrag.federation.update import manifest_of, unflatten
from fedrag.rag.indexing import shared_indexes
from fedrag.simulation.preflight import check_scenario
from fedrag.site.site_paths import SCORES
from fedrag.site.steps import train_site
from fedrag.training.losses import Losses
from fedrag.types import Component, Site, State
from fedrag.weights.store import fedrag_home

Mode = Literal["generator", "retriever", "joint"]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training gave.

    Attributes:
        system: The trained system; the one that was given stays as it was.
        loss: Mean loss over all steps, by component.
        last_loss: Mean loss over the last tenth of the steps, by component.
        steps: Optimizer steps, by component.
        questions: Questions that each component learned from.
    """

    system: RagSystem
    loss: dict[Component, float]
    last_loss: dict[Component, float]
    steps: dict[Component, int]
    questions: dict[Component, int]


def train(
    system: RagSystem,
    site: Site,
    mode: Mode = "joint",
    *,
    epochs: int | None = None,
    settings: Mapping[str, Any] | None = None,
    losses: Losses = Losses(),
    display: Display | None = None,
) -> Trained:
    """Train a system on the training questions of one site.

    The generator learns to answer from retrieved passages (RALT), the retriever which passages hold the answer. A
    system that was trained before is trained on.

    Args:
        system: What is trained; its passages play no part, the site's own are searched.
        site: Passages and training questions.
        mode: What learns: "generator", "retriever" or both, "joint".
        epochs: Passes over the questions; None: those of the settings.
        settings: Sections of a scenario that differ from the system's, such as `{"retriever": {"batch_size": 8}}`.
        losses: Loss functions, each of which can be one's own.
        display: Shows progress; None: in a notebook a line that moves, else nothing.

    Raises:
        ConfigError: The mode or a setting is unknown, or cannot work with the others.
        DataError: The site lacks questions that the mode can learn from.
        ModelError: A model cannot be trained so.
    """
    if mode not in get_args(Mode):
        raise ConfigError(f'mode = "{mode}": expected "generator", "retriever" or "joint"')
    config = _config_of(system.config, mode, epochs, settings or {})
    if config.privacy.is_on:
        raise ConfigError("fedrag.train keeps no ledger of what it spends; set privacy.epsilon in a scenario of rounds")
    check_scenario(config, [site])
    components = trained_components(config.federation)
    state = initial_state(config, components) | {
        name: system.state[name] for name in components if name in system.state
    }
    request = Request(config.to_toml(), round_number=1, state=state, components=components)
    shown = display or default_display()
    with tempfile.TemporaryDirectory() as cache:
        scores = fedrag_home() / SCORES / site.name
        bench = Workbench(site, Path(cache), scores, config, losses, shown.progress, indexes=shared_indexes())
        reply = train_site(bench, request)
    if reply.refusal:
        raise DataError(f"site: cannot train: {REFUSALS[reply.refusal]}")
    new: State = dict(system.state)
    for name, flat in reply.update.items():
        difference = unflatten(flat, manifest_of(state[name]))
        new[name] = {tensor: state[name][tensor] + difference[tensor] for tensor in state[name]}
    named = {what: {name: reply.metrics[f"{name}.{what}"] for name in reply.update} for what in _TOLD}
    steps = {name: int(count) for name, count in named["steps"].items()}
    trained = RagSystem.of_parts(config, system.passages, new)
    return Trained(trained, named["loss"], named["last_loss"], steps, dict(reply.num_examples))


_TOLD = ("loss", "last_loss", "steps")


def _config_of(config: Config, mode: Mode, epochs: int | None, settings: Mapping[str, Any]) -> Config:
    """Return the scenario of one round that trains what the mode says."""
    tree = config.model_dump(mode="json")
    for name, section in settings.items():
        tree[name] = {**tree[name], **section} if isinstance(section, Mapping) and name in tree else section
    if epochs is not None:
        for component in ("generator", "retriever"):
            tree[component] = {**tree[component], "epochs": epochs}
    tree["federation"] = {**tree["federation"], **ONE_SITE, "rounds": 1, "schedule": mode}
    tree["evaluation"] = {**tree["evaluation"], "split": "none"}
    tree["simulation"] = {**tree["simulation"], "poison": {}, "canaries": 0}
    return Config.from_dict(tree, "settings")
