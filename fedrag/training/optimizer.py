"""AdamW on float32 master weights, with a learning rate schedule over all rounds."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fedrag.config.learning_rates import learning_rate
from fedrag.config.training_settings import OptimizerSection
from fedrag.errors import TrainingDiverged
from fedrag.types import Tensors


@dataclass(frozen=True, slots=True)
class Progress:
    """The part of the whole training that one round is.

    Attributes:
        index: Earlier rounds that trained this component.
        total: Rounds of the whole run that train it.
    """

    index: int = 0
    total: int = 1

    def at(self, step: int, steps: int) -> float:
        """Return the share of the whole training that is done in the middle of a step, in (0, 1).

        At the start of a step a rate that rises from 0 would waste the first step of every site.
        """
        return (self.index + (step + 0.5) / steps) / self.total


class MasterOptimizer:
    """AdamW on float32 copies of parameters that may be in a shorter number format.

    On the parameters themselves, steps smaller than half a bfloat16 unit would be lost.

    Args:
        parameters: The trained parameters by name.
        settings: Weight decay, clipping and schedule.
        received: The float32 state at the start of the round; None: that of the parameters.
        proximal_mu: Strength of FedProx's pull towards the received state (Li et al. 2020, eq. 2).
        trained: Names of the parameters that are trained; None: all.
    """

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        settings: OptimizerSection,
        received: Tensors | None = None,
        proximal_mu: float = 0.0,
        trained: Collection[str] | None = None,
    ) -> None:
        self._given = list(parameters)
        parameters = {name: p for name, p in parameters.items() if trained is None or name in trained}
        self._parameters = parameters
        self._settings = settings
        self._proximal_mu = proximal_mu
        self._masters = {name: _master(p, (received or {}).get(name)) for name, p in parameters.items()}
        self._start = {name: master.detach().clone() for name, master in self._masters.items()}
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        self._adamw = torch.optim.AdamW(
            self._masters.values(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,  # a single pass over the weights; on a CPU foreach takes three times as long
        )

    @property
    def masters(self) -> list[nn.Parameter]:
        """The float32 copies of the trained parameters, in the order of `gradients`."""
        return list(self._masters.values())

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trained parameters, in the order of `gradients`."""
        return list(self._parameters.values())

    def gradients(self, loss: torch.Tensor) -> list[torch.Tensor | None]:
        """Run the backward pass of a loss, possibly at the same time as others.

        Returns:
            The gradients of the parameters; None where the loss does not depend on one.
        """
        return list(torch.autograd.grad(loss, self.parameters, allow_unused=True))

    def of_trained(self, gradients: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
        """Return, of gradients of all parameters that it was given, those of the trained ones."""
        return [g for name, g in zip(self._given, gradients, strict=True) if name in self._parameters]

    def add(self, gradients: Sequence[torch.Tensor | None]) -> None:
        """Add the gradients of a part of a batch to those of the masters, in float32."""
        found = [(m, g) for m, g in zip(self._masters.values(), gradients, strict=True) if g is not None]
        further = [(master.grad, gradient) for master, gradient in found if master.grad is not None]
        first = [(torch.empty_like(master), gradient) for master, gradient in found if master.grad is None]
        if further:
            torch._foreach_add_([own for own, _ in further], [gradient for _, gradient in further])
        if first:  # copies: autograd may return the same tensor for two parameters
            torch._foreach_copy_([own for own, _ in first], [gradient for _, gradient in first])
        for master, (own, _) in zip([master for master, _ in found if master.grad is None], first, strict=True):
            master.grad = own

    def step(self, done: float) -> float:
        """Take one step and return the L2 norm of the gradient before clipping.

        Args:
            done: The share of the whole training that is done.

        Raises:
            TrainingDiverged: The norm is not finite; nothing has changed.
        """
        if self._proximal_mu:
            for name, master in self._masters.items():
                pull = self._proximal_mu * (master.detach() - self._start[name])
                master.grad = pull if master.grad is None else master.grad.add_(pull)
        norm = float(nn.utils.clip_grad_norm_(self._masters.values(), self._settings.clip_norm))
        if not math.isfinite(norm):
            raise TrainingDiverged("the training diverged: its gradient is not finite")
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate(self._settings, done)
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_copy_(list(self._parameters.values()), list(self._masters.values()))
        return norm

    def state(self) -> Tensors:
        """Return the master weights."""
        return {name: master.detach().cpu().numpy() for name, master in self._masters.items()}

    def update(self) -> Tensors:
        """Return the difference between the master weights now and at the start."""
        return {name: (master.detach() - self._start[name]).cpu().numpy() for name, master in self._masters.items()}


def _master(parameter: nn.Parameter, received: np.ndarray | None) -> nn.Parameter:
    if received is None:
        return nn.Parameter(parameter.detach().float().clone())
    return nn.Parameter(torch.from_numpy(received.astype(np.float32)).to(parameter.device))
