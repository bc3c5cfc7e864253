"""What the baselines of a comparison may have for themselves: settings that suit the federation may not suit them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedrag.config.section import Section
from fedrag.types import ShippedComponent

Baseline = Literal["local", "pooled"]


class ArmTraining(Section):
    """How an arm trains a component."""

    learning_rate: Annotated[float, Field(ge=0.0)] = 0.0
    """Peak learning rate; 0: that of the scenario."""
    batch_size: Annotated[int, Field(ge=0)] = 0
    """Examples per optimizer step; 0: that of the scenario."""


class ArmConfig(Section):
    """An arm's own settings."""

    generator: ArmTraining = ArmTraining()
    """Of its generator."""
    retriever: ArmTraining = ArmTraining()
    """Of its retriever."""

    def of(self, component: ShippedComponent) -> dict[str, float]:
        """Return what it sets for a component, by the name of the setting.

        >>> ArmConfig(generator=ArmTraining(learning_rate=1e-3)).of("generator")
        {'learning_rate': 0.001}
        """
        training: ArmTraining = getattr(self, component)
        return {name: value for name, value in training.model_dump().items() if value}


class ArmsConfig(Section):
    """Settings of the baselines that are not the federation's."""

    local: ArmConfig = ArmConfig()
    """Of the sites alone."""
    pooled: ArmConfig = ArmConfig()
    """Of the pooled data."""
