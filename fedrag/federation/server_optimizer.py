"""The server's step with the averaged difference as a gradient: FedAvgM, FedAdam, FedYogi, FedAdagrad.

With D the averaged difference of a round, eta the learning rate, b1 and b2 the shares that are kept, elementwise:

    FedAvgM (Hsu et al. 2019)                     m = b1 m + D                       x = x + eta m
    adaptive (Reddi et al. 2021, algorithm 2)     m = b1 m + (1 - b1) D              x = x + eta m / (sqrt(v) + tau)
        FedAdagrad                                v = v + D^2                        (b1 = 0, as in the paper)
        FedYogi                                   v = v - (1 - b2) D^2 sign(v - D^2)
        FedAdam                                   v = b2 v + (1 - b2) D^2

m starts at 0 and v at tau^2. There is no correction of their bias, as in the paper. Each step is computed in float64;
m and v are kept in float32, and the step is taken with what is kept: a run that is resumed has the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fedrag.config.averaging_settings import ServerOptimizer, ServerStepConfig
from fedrag.types import Array, Tensors

Matrix = npt.NDArray[np.float64]
_ADAPTIVE_RATE = 0.01


@dataclass(frozen=True, slots=True)
class Memory:
    """What the optimizer keeps of a component between rounds, by tensor; a tensor that never moved has none.

    Attributes:
        momentum: The direction m.
        variance: The mean square v, of the adaptive ones.
    """

    momentum: Tensors = field(default_factory=dict)
    variance: Tensors = field(default_factory=dict)


def server_step(
    state: Tensors, difference: Tensors, optimizer: ServerOptimizer, settings: ServerStepConfig, memory: Memory
) -> tuple[Tensors, Memory]:
    """Return a component's next tensors and what the optimizer then keeps; tensors without a difference stay.

    Args:
        state: The tensors that the sites received.
        difference: The averaged difference of those that they trained.
        optimizer: Which one; not "none".
        settings: Its learning rate and what it keeps.
        memory: What it kept after the last round.
    """
    adaptive = optimizer != "momentum"
    rate = settings.learning_rate
    eta = (_ADAPTIVE_RATE if adaptive else 1.0) if rate == "auto" else rate
    kept = 0.0 if optimizer == "adagrad" else settings.momentum
    moved, momentum, variance = dict(state), dict(memory.momentum), dict(memory.variance)
    for name, change in difference.items():
        delta = change.astype(np.float64)
        direction = delta if not adaptive else (1.0 - kept) * delta
        momentum[name] = _float32(kept * _float64(momentum.get(name), delta, 0.0) + direction)
        step = eta * momentum[name].astype(np.float64)
        if adaptive:
            before = _float64(variance.get(name), delta, settings.tau**2)
            variance[name] = _float32(_SQUARES[optimizer](before, np.square(delta), settings.beta2))
            step /= np.sqrt(variance[name].astype(np.float64)) + settings.tau
        moved[name] = _float32(state[name] + step)
    return moved, Memory(momentum, variance)


def _adam(before: Matrix, square: Matrix, beta2: float) -> Matrix:
    return beta2 * before + (1.0 - beta2) * square


def _yogi(before: Matrix, square: Matrix, beta2: float) -> Matrix:
    return before - (1.0 - beta2) * square * np.sign(before - square)


def _adagrad(before: Matrix, square: Matrix, beta2: float) -> Matrix:
    return before + square


_SQUARES: dict[str, Callable[[Matrix, Matrix, float], Matrix]] = {"adam": _adam, "yogi": _yogi, "adagrad": _adagrad}


def _float64(tensor: Array | None, like: Matrix, start: float) -> Matrix:
    """Return a kept tensor, or where there is none yet, its start."""
    return np.full_like(like, start) if tensor is None else tensor.astype(np.float64)


def _float32(tensor: Matrix) -> Array:
    return tensor.astype(np.float32)
