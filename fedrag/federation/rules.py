"""Chooses what folds a component's updates: by `federation.rule` and `federation.robust`, or a rule of one's own."""

from __future__ import annotations

from collections.abc import Iterable

from fedrag.config.averaging import averaging_of
from fedrag.config.run_settings import FederationConfig
from fedrag.errors import ConfigError, QuorumError
from fedrag.federation.aggregation import Aggregator, Collected, Combine, ExactMean, Rule, own_rule
from fedrag.federation.lora_rules import best_factors
from fedrag.federation.robust import robust_average
from fedrag.federation.update import Manifest
from fedrag.types import Array, Component, Tensors


def aggregator_of(
    config: FederationConfig,
    component: Component,
    state: Tensors,
    manifest: Manifest,
    weight_sum: int,
    rule: Rule | None = None,
) -> Aggregator:
    """Return what one round's updates of a component are folded into.

    Args:
        config: The settings of the rounds.
        component: The component.
        state: Its tensors, as the sites received them.
        manifest: Those that they trained.
        weight_sum: The largest that the weights may add up to.
        rule: A rule of one's own, which comes before all settings.
    """
    chosen = averaging_of(config, component)
    if rule is not None:
        return Collected(own_rule(rule, manifest, component, state), manifest.size)
    if chosen.robust != "none":
        return Collected(_robust(config, component), manifest.size)
    if chosen.rule == "svd":
        return Collected(best_factors(state, manifest), manifest.size)
    return ExactMean(manifest.size, chosen.max_update_norm, weight_sum)


def refuse_beside_own_rule(config: FederationConfig, components: Iterable[Component]) -> None:
    """Refuse settings whose place a rule of one's own takes.

    Raises:
        ConfigError: A component has such a setting.
    """
    if config.secure:
        raise ConfigError("federation.secure = true, but an aggregation rule of your own is given single updates")
    for component in components:
        chosen = averaging_of(config, component)
        if chosen.robust != "none" or chosen.rule in ("svd", "exact"):
            told = f'robust = "{chosen.robust}"' if chosen.robust != "none" else f'rule = "{chosen.rule}"'
            raise ConfigError(
                f"an aggregation rule of your own takes the place of federation.{told} of the {component}; choose one"
            )


def _robust(config: FederationConfig, component: Component) -> Combine:
    robust = averaging_of(config, component).robust

    def combine(flats: list[Array], weights: list[int]) -> Array:
        if len(flats) <= 2 * config.bad_sites:
            raise QuorumError(
                f'{len(flats)} sites gave an update of the {component}: federation.robust = "{robust}" needs more than '
                f"{2 * config.bad_sites}, so that {config.bad_sites} bad ones are fewer than the others"
            )
        return robust_average(flats, robust, config.bad_sites, config.clip_distance)

    return combine
