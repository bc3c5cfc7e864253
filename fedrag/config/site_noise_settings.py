"""The settings of noise that covers whole sites, in simulations of many clients."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fedrag.config.section import Section


class SiteNoiseConfig(Section):
    """Noise on each averaged difference (DP-FedAvg, McMahan et al. 2018): it covers a whole client and its questions.

    For simulations of many clients alone. A deployment of some organisations has too few for it; there each site covers
    its single questions, by the settings of [privacy].
    """

    epsilon: Annotated[float, Field(ge=0.0)] = 0.0
    """The most that one whole client may change of the trained models, at a delta of one in ten times the clients: each
    round draws every client with chance federation.fraction and adds the noise that the rounds ask for; 0: no noise."""
    clip_norm: Annotated[float, Field(ge=1e-6, le=1e6)] = 0.1
    """Largest L2 norm of a client's difference of a component; larger ones are scaled down to it."""

    @property
    def is_on(self) -> bool:
        """Whether averaged differences get noise."""
        return self.epsilon > 0
