"""Says which rule to try where the average of factors is far from that of their products.

The published comparisons of the rules contradict one another, so this is what to try, not what is better.
"""

from __future__ import annotations

from fedrag.config.averaging import averaging_of
from fedrag.config.run_settings import FederationConfig
from fedrag.config.schedule import rounds_training
from fedrag.types import Component

LIMIT = 0.03
"""The aggregation error from which another rule is worth a try."""
MANY_SITES = 10


def rule_to_try(config: FederationConfig, component: Component, error: float, sites: int) -> str:
    """Return a sentence on a round's aggregation error, or "" where it is small or the rule is another.

    Args:
        config: The settings of the rounds.
        component: The component.
        error: Its aggregation error in this round.
        sites: Sites whose updates were averaged.
    """
    chosen = averaging_of(config, component)
    if error <= LIMIT or chosen.rule != "fedavg":
        return ""
    if chosen.robust == "none" and chosen.server_optimizer == "none" and sites < MANY_SITES:
        rule, why = "svd", "the best factors for the mean of the products"
    elif rounds_training(config, component) > 1:
        rule, why = "rolora", "one factor a round, whose mean is that of the products"
    else:
        rule, why = "ffa", "only B is trained, whose mean is that of the products"
    return (
        f"the average of the {component}'s factors is {error:.1%} off that of their products; try "
        f'federation.{component}.rule = "{rule}": {why}'
    )
