"""What an arm of a run trained, all sites and rounds together: it tells whether a comparison is fair."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fedrag.config.scenario import Config
from fedrag.config.training_settings import OptimizerSection
from fedrag.runs.run_folder import RunFolder
from fedrag.types import COMPONENTS, Component


@dataclass(frozen=True, slots=True)
class TrainingTotal:
    """What was done to train one component.

    Attributes:
        learning_rate: Peak learning rate.
        batch_size: Examples per optimizer step; where noise is added, the most that a site expects in one.
        steps: Optimizer steps at all sites.
        questions: Questions read, each as often as it was.
    """

    learning_rate: float
    batch_size: int
    steps: int = 0
    questions: int = 0


def training_totals(runs: Iterable[tuple[Config, RunFolder]]) -> dict[Component, TrainingTotal]:
    """Return the sums over the runs that an arm consists of, for each component that comes with fedrag.

    Args:
        runs: The settings that each of them trained with, and its folder.
    """
    totals: dict[Component, TrainingTotal] = {}
    for config, run in runs:
        for record in run.rounds():
            for told in (*record["sites"].values(), record.get("together", {})):
                for component in COMPONENTS:
                    if f"{component}.steps" in told:
                        totals[component] = _added(totals.get(component), config, component, told)
    return totals


def _added(before: TrainingTotal | None, config: Config, component: str, told: dict[str, Any]) -> TrainingTotal:
    settings: OptimizerSection = getattr(config, component)
    examples, steps = int(told[f"{component}.examples"]), int(told[f"{component}.steps"])
    batch_size, passes = settings.batch_size, float(settings.epochs)
    if config.privacy.is_on:
        batch_size, passes = round(config.privacy.sample_rate * examples), config.privacy.sample_rate * steps
    total = before or TrainingTotal(settings.learning_rate, batch_size)
    return TrainingTotal(
        total.learning_rate,
        max(total.batch_size, batch_size),
        total.steps + steps,
        total.questions + round(examples * passes),
    )
