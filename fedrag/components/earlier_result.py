"""The result of an earlier run, from which a run starts in place of new tensors: `start_from` in the scenario."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components
from fedrag.components.state import initial_state
from fedrag.config.scenario import Config
from fedrag.errors import ConfigError, RunError
from fedrag.federation.lora_factors import trained_part
from fedrag.federation.update import manifest_of
from fedrag.files import sha256_of
from fedrag.runs.facts import changed_models, model_facts
from fedrag.runs.run_folder import RunFolder
from fedrag.types import COMPONENTS, Component, State, Tensors
from fedrag.weights.store import find_model

_MEANING: Mapping[Component, tuple[str, ...]] = {
    "generator": ("adapter_from", "lora.rank", "lora.alpha", "lora.targets"),
    "retriever": ("weights", "token_embeddings", "lora.rank", "lora.alpha", "lora.targets"),
}
"""The settings without which a component's tensors mean something else, or nothing."""


@dataclass(frozen=True, slots=True)
class EarlierResult:
    """What a run takes over from an earlier one.

    Attributes:
        state: The result's tensors by component.
        facts: What is recorded of it: name of the run, its scenario, rounds and components, the hash of its result.
    """

    state: State
    facts: dict[str, Any]


def read_earlier_result(config: Config, components: Components = SHIPPED) -> EarlierResult:
    """Read the result of the run that `config.start_from` names.

    Args:
        config: The scenario that starts from it.
        components: What can be trained, by name.

    Raises:
        RunError: It is no run, or is not finished, or its models are not those of the scenario.
        ConfigError: Its tensors mean something else under the scenario's settings.
        ModelError: A model of the scenario is not fetched.
    """
    run = RunFolder.open(Path(config.start_from))
    state = run.load_result()
    _require_models(config, run, state)
    for name, tensors in state.items():
        _require_settings(config, run, name)
        _require_sides(config, run, name)
        _require_shapes(run, name, tensors, initial_state(config, (name,), components)[name])
    facts = {
        "run": run.path.resolve().name,
        "scenario": run.config.name,
        "rounds": run.config.federation.rounds,
        "components": list(state),
        "sha256": sha256_of(run.path / "final" / "state.safetensors"),
    }
    return EarlierResult(state, facts)


def take_start(run: RunFolder, components: Components = SHIPPED) -> None:
    """Keep in a run's folder what it takes over from an earlier run, once: that run may be gone when it is resumed.

    It raises the errors of `read_earlier_result`.
    """
    if run.config.start_from and "start_from" not in run.facts:
        earlier = read_earlier_result(run.config, components)
        run.save_start(earlier.state)
        run.record_facts(run.facts | {"start_from": earlier.facts})


def _require_models(config: Config, run: RunFolder, state: State) -> None:
    """Require the base models whose adapters, or weights, the result holds."""
    keys: list[Component] = [key for key in COMPONENTS if key in state]
    recorded = {key: told for key, told in run.facts.get("models", {}).items() if key in keys}
    now = {key: model_facts(find_model(config.models.name_of(key))) for key in keys}
    if changed := changed_models(recorded, now):
        raise RunError(f"start_from = {run.path}: was trained on other models than this scenario names: {changed}")


def _require_settings(config: Config, run: RunFolder, name: Component) -> None:
    """Require the settings that say what a component's tensors mean."""
    for setting in _MEANING.get(name, ()):
        before, now = (json.dumps(_value_of(scenario, f"{name}.{setting}")) for scenario in (run.config, config))
        if before != now and (name, setting.partition(".")[0]) not in _unused(config, run):
            raise ConfigError(
                f"start_from = {run.path}: was trained with {name}.{setting} = {before}, this scenario has {now}; "
                f"go on with: --set {shlex.quote(f'{name}.{setting}={before}')}"
            )


def _require_sides(config: Config, run: RunFolder, name: Component) -> None:
    """Require that passages are encoded as they were: by what is trained, or by the base model."""
    before, now = (scenario.retriever.trains_passage_side for scenario in (run.config, config))
    if name == "retriever" and before != now:
        by = ("what it trained", "the base model") if before else ("the base model", "what is trained")
        raise ConfigError(
            f"start_from = {run.path}: its passages were encoded by {by[0]}, in this scenario by {by[1]}; see "
            "retriever.loss, retriever.contrastive.side and retriever.lsr.side"
        )


def _unused(config: Config, run: RunFolder) -> set[tuple[Component, str]]:
    """Return the sections that mean nothing under either scenario: an adapter's, where all weights are trained."""
    full = {scenario.retriever.weights for scenario in (config, run.config)} == {"full"}
    return {("retriever", "lora" if full else "token_embeddings")}


def _value_of(config: Config, path: str) -> Any:
    value: Any = config
    for key in path.split("."):
        value = getattr(value, key)
    return value


def _require_shapes(run: RunFolder, name: Component, found: Tensors, expected: Tensors) -> None:
    """Require the names and shapes that the scenario would begin with, in its order; a side adapter may come beside."""
    found = trained_part(found, "")
    shapes = [{key: tensor.shape for key, tensor in tensors.items()} for tensors in (found, expected)]
    if shapes[0] != shapes[1] or manifest_of(found).sha256 != manifest_of(expected).sha256:
        raise ConfigError(
            f"start_from = {run.path}: the tensors of its {name} are not those that this scenario trains; give "
            f"[{name}] the settings of {run.path / 'scenario.toml'}"
        )
