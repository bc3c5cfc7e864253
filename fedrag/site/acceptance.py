"""Whether a site takes what it is handed as trained models: those of the scenario, whole and finite, or nothing."""

from __future__ import annotations

import numpy as np

from fedrag.components.base_models import base_tensor_hashes
from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components
from fedrag.components.state import initial_state
from fedrag.components.work import Workbench
from fedrag.config.scenario import Config
from fedrag.config.schedule import trained_components
from fedrag.federation.lora_factors import trained_part
from fedrag.federation.messages import Reply, Request
from fedrag.models.side_adapter import belongs_beside
from fedrag.runs.facts import model_facts
from fedrag.site.delivery import save_delivery
from fedrag.site.refusal import DeliveryRefused
from fedrag.types import Component, State, Tensors
from fedrag.weights.store import find_model


def accept_delivery(
    bench: Workbench, request: Request, components: Components = SHIPPED, *, adopts: bool = True
) -> Reply:
    """Save the delivered tensors and the scenario in `<cache>/models/<run, or scenario>/`; see `save_delivery`.

    Raises:
        DeliveryRefused: They are not the models of the scenario; nothing was saved.
        ModelError: A base model is not here, so nobody could use them.
    """
    config = bench.config
    _check(request.state, config, components)
    models = {
        key: model_facts(find_model(config.models.name_of(key))) for key in base_tensor_hashes(config, components)
    }
    save_delivery(bench.cache, bench.run or config.name, request.state, request.scenario, models, adopts=adopts)
    return Reply(metrics={"delivered": len(request.state)})


def _check(state: State, config: Config, components: Components) -> None:
    """Refuse a state that lacks a component which the scenario trains, or holds what no component is made of."""
    if missing := set(trained_components(config.federation)) - set(state):
        raise DeliveryRefused("bad-delivery", f"it lacks the {' and the '.join(sorted(missing))}")
    for component, tensors in state.items():
        if component not in components:  # one that an earlier run trained may be handed on, but none that nobody knows
            raise DeliveryRefused("bad-delivery", "it holds a component that is not known here")
        _check_component(component, tensors, initial_state(config, (component,), components)[component])


def _check_component(component: Component, tensors: Tensors, expected: Tensors) -> None:
    """Require the names and shapes that the scenario trains; a side adapter of the same layers may come beside."""
    factors = trained_part(tensors, "")
    shapes, wanted = ({name: tensor.shape for name, tensor in one.items()} for one in (factors, expected))
    beside = {name: tensor for name, tensor in tensors.items() if name not in factors}
    if shapes != wanted or not belongs_beside(beside, factors):
        raise DeliveryRefused(
            "bad-delivery", f"the names and shapes of its {component}'s tensors are not those that the scenario trains"
        )
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise DeliveryRefused("bad-delivery", f"its {component} holds NaN or infinity")
