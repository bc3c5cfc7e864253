"""Measures delivered models that wait against those in use, and does with them what the site's policy says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fedrag.display import Display, Quiet
from fedrag.evaluation.evaluate import measure_sites
from fedrag.evaluation.records import Measured
from fedrag.site.admin.evaluate_delivered import can_answer, load_own_site
from fedrag.site.adoption import UNTOUCHED, Verdict, decides_for, judge, record_verdict
from fedrag.site.delivery import Delivered, Delivery, current_delivery, deliveries, open_delivery
from fedrag.site.site_config import SiteConfig


def try_waiting(folder: Path, config: SiteConfig, display: Display = Quiet(), run: str | None = None) -> list[Delivery]:
    """Judge the deliveries that wait to be measured, the oldest first, and return them with their verdicts.

    Args:
        folder: The site's folder.
        config: Its site.toml.
        display: Shows lines and progress.
        run: The run whose delivery alone is judged; None: all that wait.

    Raises:
        FedragError: The data or a model is not in order; what was not judged still waits.
    """
    runs = []
    for delivery in [one for one in deliveries(folder) if one.is_to_be_judged and run in (None, one.run)]:
        verdict = _verdict(folder, config, delivery, display)
        record_verdict(folder, delivery, verdict, adopts=decides_for(config.policy, verdict))
        runs.append(delivery.run)
    return [delivery for delivery in deliveries(folder) if delivery.run in runs]


def _verdict(folder: Path, config: SiteConfig, delivery: Delivery, display: Display) -> Verdict:
    """Measure on the validation questions; the base models are loaded once, and take one state after the other."""
    site = load_own_site(config)
    current = current_delivery(deliveries(folder))
    against = UNTOUCHED if current is None else current.run
    if not site.validation:
        return judge([], [], against)
    delivered = open_delivery(folder, delivery)
    in_use = open_delivery(folder, current) if current else replace(delivered, state={})
    answers = all(can_answer(models, config.policy, display) for models in (delivered, in_use))

    def measured(models: Delivered) -> list[Measured]:
        return measure_sites([site], "validation", models.config, models.state, answers, display, delivered.indexes)

    return judge(measured(in_use), measured(delivered), against)
