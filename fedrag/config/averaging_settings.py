"""The settings of averaging: what the server makes of the sites' differences, for all components or for one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedrag.config.section import Section
from fedrag.config.values import AutoPositive, Positive

RuleName = Literal["fedavg", "ffa", "rolora", "svd", "exact"]
Robust = Literal["none", "clipping", "geometric-median", "mixing"]
ServerOptimizer = Literal["none", "momentum", "adam", "yogi", "adagrad"]
Weighting = Literal["examples", "equal"]


class ServerStepConfig(Section):
    """The step of federation.server_optimizer, in the words of Reddi et al. 2021."""

    learning_rate: AutoPositive = "auto"
    """Factor eta on the step; auto: 1 for momentum, 0.01 for the others, whose steps have a size of their own."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Share beta 1 of the last step's direction that is kept; adagrad keeps none."""
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    """Share of the mean square that adam and yogi keep."""
    tau: Positive = 1e-3
    """Added to the root of the mean square, which starts at tau squared: differences that are much smaller are taken as
    they are, larger ones are made equal."""


class ComponentAveraging(Section):
    """What one component has for itself; the passes of a round are its own `epochs`."""

    rule: Literal["same", "fedavg", "ffa", "rolora", "svd", "exact"] = "same"
    """Instead of federation.rule."""
    robust: Literal["same", "none", "clipping", "geometric-median", "mixing"] = "same"
    """Instead of federation.robust."""
    weighting: Literal["same", "examples", "equal"] = "same"
    """Instead of federation.weighting."""
    server_optimizer: Literal["same", "none", "momentum", "adam", "yogi", "adagrad"] = "same"
    """Instead of federation.server_optimizer."""
    max_update_norm: Annotated[float, Field(ge=0.0, le=1e9)] = 0.0
    """Instead of federation.max_update_norm; 0: the same."""
    secure_clip_norm: Annotated[float, Field(ge=0.0, le=1e6)] = 0.0
    """Instead of federation.secure_clip_norm; 0: the same."""
