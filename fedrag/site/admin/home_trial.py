"""Trains the models in use on at home, on the site's own questions; nothing of it leaves the site."""

from __future__ import annotations

from pathlib import Path

from fedrag.components.shipped import SHIPPED
from fedrag.components.work import Workbench
from fedrag.display import Display, Quiet
from fedrag.errors import ConfigError
from fedrag.runs.home_results import TrainedAtHome
from fedrag.site.admin.evaluate_delivered import load_own_site
from fedrag.site.delivery import Delivered, Delivery, current_delivery, deliveries, open_delivery
from fedrag.site.home_delivery import record_home
from fedrag.site.home_training import train_at_home
from fedrag.site.site_config import SiteConfig
from fedrag.site.site_paths import SCORES


def personalise(folder: Path, config: SiteConfig, display: Display = Quiet()) -> Delivery:
    """Train the delivery in use on, keep what gains on the site's validation questions, and return the delivery.

    Args:
        folder: The site's folder.
        config: Its site.toml, with the passes and what the policy allows to be trained; 0 passes count as 1.
        display: Shows lines and progress.

    Raises:
        ConfigError: No delivered models are in use, or they were trained on at home already.
        FedragError: The data or a model is not in order; nothing was changed.
    """
    current = current_delivery(deliveries(folder))
    if current is None:
        raise ConfigError(f"{folder}: the untouched models are current; there is nothing to train on")
    if current.is_home:
        raise ConfigError(
            f"{folder}: {current.run} was trained on at home already; to begin anew, go back first with: fedrag client "
            f"rollback {folder}"
        )
    delivered, passes = open_delivery(folder, current), max(1, config.personalise)
    record_home(folder, current, delivered.state, passes, _trained(folder, config, delivered, passes, display))
    return {one.run: one for one in deliveries(folder)}[current.run]


def _trained(folder: Path, config: SiteConfig, delivered: Delivered, passes: int, display: Display) -> TrainedAtHome:
    policy, scenario = config.policy, delivered.config
    if scenario.own.module:
        return TrainedAtHome(why=f"its losses are those of {scenario.own.module}, which runs in rounds alone")
    allowed = [
        name
        for name in policy.components
        if not policy.base_models or scenario.models.name_of(name) in policy.base_models
    ]
    if not set(allowed) & set(delivered.state):
        return TrainedAtHome(why="the policy allows none of its components to be trained")
    bench = Workbench(
        load_own_site(config),
        folder,
        folder / SCORES,
        scenario,
        on_progress=display.progress,
        run=delivered.run,
        indexes=delivered.indexes,
    )
    return train_at_home(bench, delivered.state, passes, SHIPPED, allowed)
