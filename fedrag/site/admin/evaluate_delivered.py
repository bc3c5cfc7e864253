"""Measures the delivered models on a site's own questions; no result leaves the site."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fedrag.data.site_folder import load_site
from fedrag.display import Display, Quiet
from fedrag.errors import DataError, ModelError
from fedrag.evaluation.evaluate import measure_sites
from fedrag.evaluation.measure import MeasuredSplit
from fedrag.evaluation.records import Measured
from fedrag.site.delivery import Delivered
from fedrag.site.site_config import Policy, SiteConfig
from fedrag.types import Site, State
from fedrag.weights.store import find_model


def load_own_site(config: SiteConfig) -> Site:
    """Return a site's data under the site's own name.

    Raises:
        DataError: It is malformed.
    """
    return replace(load_site(Path(config.data)), name=config.name)


def measure_delivered(
    site: Site,
    policy: Policy,
    delivered: Delivered,
    split: MeasuredSplit,
    display: Display = Quiet(),
    base: Delivered | None = None,
) -> dict[str, list[Measured]]:
    """Measure the untouched and the delivered models on a site's questions.

    Args:
        site: The site.
        policy: Its policy; a generator that it forbids answers nothing.
        delivered: The delivered models.
        split: Questions to measure.
        display: Shows lines and progress.
        base: The delivery from which they were trained on at home; None: they are as they were delivered.

    Returns:
        A record per question, under `untouched`, `federated` and, where they were trained on at home, `personalised`.

    Raises:
        DataError: The site has no question in this split.
        ModelError: The retriever is not fetched.
    """
    arms: dict[str, State] = {"untouched": {}, "federated": (base or delivered).state}
    arms |= {"personalised": delivered.state} if base else {}
    generate = can_answer(delivered, policy, display)
    measured = {}
    for arm, state in arms.items():
        display.say(f"measuring the {'delivered' if arm == 'federated' else arm} models")
        measured[arm] = measure_sites([site], split, delivered.config, state, generate, display, delivered.indexes)
        if not measured[arm]:
            raise DataError(f"{site.name}: has no question in its {split} split; choose another with --split")
    return measured


def can_answer(delivered: Delivered, policy: Policy, display: Display) -> bool:
    """Return whether the generator may run here: a site in a run of the retriever alone may never have fetched one."""
    name = delivered.config.models.generator
    try:
        find_model(name)
    except ModelError as error:
        display.say(f"no answers are generated: {error}")
        return False
    if policy.base_models and name not in policy.base_models:
        display.say(f"no answers are generated: {name} is not in policy.base_models")
        return False
    return True
