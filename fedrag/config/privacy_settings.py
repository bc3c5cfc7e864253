"""The settings of differential privacy: how little may depend on any one question of a site."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from fedrag.config.section import Section
from fedrag.config.values import AutoPositive, Count


class PrivacyConfig(Section):
    """DP-SGD at the sites (Abadi et al. 2016): each question's part of a step is bounded, and noise covers it."""

    epsilon: Annotated[float, Field(ge=0.0)] = 0.0
    """The most that one question with its answer, or one subject where questions name it, may change of all that a site
    sends in this run: each site adds the noise that its number of questions, and the steps, ask for; 0: no noise."""
    delta: AutoPositive = "auto"
    """The chance with which epsilon may not hold; auto: one in ten times the site's training questions or subjects."""
    clip_norm: Annotated[float, Field(ge=1e-6, le=1e6)] = 0.1
    """Largest L2 norm of one question's, or subject's, gradient; larger ones are scaled down to it. Small is right:
    most are then as long as it, and the optimizer does not mind the scale."""
    sample_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Chance of each question, or subject, to be in a step; it takes the place of batch_size. 1, all of them in each
    step, needs least noise for what is learnt."""
    steps: Count = 10
    """Steps of each component in one round; they take the place of epochs."""

    @model_validator(mode="after")
    def _check(self) -> PrivacyConfig:
        if self.delta != "auto" and self.delta >= 1:
            raise ValueError('privacy.delta is a chance: expected "auto" or a number between 0 and 1')
        return self

    @property
    def is_on(self) -> bool:
        """Whether training adds noise."""
        return self.epsilon > 0
