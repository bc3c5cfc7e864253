"""Decides how the differences of each component are averaged, and refuses what cannot work together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fedrag.config.averaging_settings import (
    ComponentAveraging,
    Robust,
    RuleName,
    ServerOptimizer,
    ServerStepConfig,
    Weighting,
)
from fedrag.config.run_settings import FederationConfig
from fedrag.config.schedule import trained_components
from fedrag.languages.catalogue import ENGLISH, Words
from fedrag.types import COMPONENTS, Component

ONE_SITE: dict[str, Any] = {
    **{"rule": "fedavg", "robust": "none", "server_optimizer": "none", "max_norm_of_median": 0.0, "secure": False},
    **{"server": ServerStepConfig(), **{component: ComponentAveraging() for component in COMPONENTS}},
}
"""The settings of [federation] where one site trains alone: its difference is added as it is."""


@dataclass(frozen=True, slots=True)
class Averaging:
    """How the differences of one component become one; see the settings of the same names."""

    rule: RuleName
    robust: Robust
    weighting: Weighting
    server_optimizer: ServerOptimizer
    max_update_norm: float
    secure_clip_norm: float

    @property
    def averages_factors(self) -> bool:
        """Whether the averaged factors alone stand for all updates."""
        return self.robust == "none" and self.rule != "exact"


def averaging_of(config: FederationConfig, component: Component) -> Averaging:
    """Return how a component is averaged: by its own settings, else by those of the federation.

    >>> config = FederationConfig(rule="svd", retriever=ComponentAveraging(rule="ffa"))
    >>> averaging_of(config, "generator").rule, averaging_of(config, "retriever").rule
    ('svd', 'ffa')
    """
    own: ComponentAveraging = getattr(config, component) if component in COMPONENTS else ComponentAveraging()
    return Averaging(
        rule=config.rule if own.rule == "same" else own.rule,
        robust=config.robust if own.robust == "same" else own.robust,
        weighting=config.weighting if own.weighting == "same" else own.weighting,
        server_optimizer=config.server_optimizer if own.server_optimizer == "same" else own.server_optimizer,
        max_update_norm=own.max_update_norm or config.max_update_norm,
        secure_clip_norm=own.secure_clip_norm or config.secure_clip_norm,
    )


def weighs_by_counts(config: FederationConfig) -> bool:
    """Return whether any trained component is averaged by numbers of examples that sites tell; a secure sum hides them.

    >>> weighs_by_counts(FederationConfig(weighting="equal", generator=ComponentAveraging(weighting="examples")))
    True
    """
    return not config.secure and any(
        averaging_of(config, name).weighting != "equal" for name in trained_components(config)
    )


def averaging_text(config: FederationConfig, components: Iterable[Component], words: Words = ENGLISH) -> str:
    """Return in a few words how components are averaged that are not by the plain mean; "" where all are.

    >>> config = FederationConfig(rule="ffa", retriever=ComponentAveraging(server_optimizer="yogi"))
    >>> averaging_text(config, COMPONENTS)
    'generator by ffa, retriever by ffa and yogi'
    """
    told = []
    for component in components:
        chosen = averaging_of(config, component)
        ways = [way for way in (chosen.rule, chosen.robust, chosen.server_optimizer) if way not in ("fedavg", "none")]
        if ways:
            told.append(words("fact.averaged_by", component=words.component(component), ways=words.joined(ways)))
    return words.listed(told)


def contradiction(config: FederationConfig, component: Component) -> str:
    """Return why the averaging of a component cannot work, or ""."""
    chosen = averaging_of(config, component)
    new_factors = chosen.rule in ("svd", "exact")
    if new_factors and chosen.robust != "none":
        return (
            f'federation.rule = "{chosen.rule}" adds up products of factors, federation.robust = "{chosen.robust}" '
            f'takes each update as one vector: for the {component} set rule = "ffa" or "rolora", whose mean of vectors '
            "is that of the products"
        )
    if new_factors and chosen.server_optimizer != "none":
        return (
            f'federation.rule = "{chosen.rule}" makes factors that federation.server_optimizer = '
            f'"{chosen.server_optimizer}", which remembers how the last ones moved, would undo: for the {component} '
            "set one of them alone"
        )
    if chosen.robust != "none" and chosen.weighting == "examples":
        return (
            f'federation.robust = "{chosen.robust}" needs federation.weighting = "equal": a bad site that claims many '
            "examples would outweigh the others"
        )
    if component not in COMPONENTS and chosen.rule != "fedavg":
        return (
            f'federation.rule = "{chosen.rule}" knows the adapters of generator and retriever alone, not those of the '
            f"{component}; set it in [federation.generator] or [federation.retriever]"
        )
    return ""


def secure_contradiction(config: FederationConfig, component: Component) -> str:
    """Return why a component cannot be averaged by a secure sum, in which no single update is seen, or ""."""
    if not config.secure:
        return ""
    chosen = averaging_of(config, component)
    usual = FederationConfig().max_weight_ratio
    single = {
        f'federation.robust = "{chosen.robust}" compares single updates; set "none"': chosen.robust != "none",
        f'federation.rule = "{chosen.rule}" adds up products of single updates; set "fedavg", "ffa" or "rolora"': (
            chosen.rule in ("svd", "exact")
        ),
        f"federation.max_norm_of_median = {config.max_norm_of_median:g} compares the norms of single updates; set 0": (
            config.max_norm_of_median > 0
        ),
        f"federation.max_weight_ratio = {config.max_weight_ratio:g} compares single counts; leave it out, and set "
        "federation.secure_max_examples": config.max_weight_ratio not in (0.0, usual),
        f"federation.overselect = {config.overselect:g} leaves sites out because they are late, and each site that is "
        "left out costs the sum one that may vanish; set 0": config.overselect > 0,
        "federation.diagnose = true asks each site for counts of its own; set false": config.diagnose,
        'federation.wire = "int8" gives each block of an update a scale of its own, and such numbers do not add up; '
        'set "bfloat16" or "float32"': config.wire == "int8",
    }
    return next((f"federation.secure = true, but {why}" for why, is_set in single.items() if is_set), "")
