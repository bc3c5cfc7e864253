"""Gradient caching: the gradient of a large batch in the memory of a small one (GradCache, Gao et al. 2021).

A loss that compares all texts of a batch needs the vectors of all of them at once, but not what the encoder keeps for
its backward pass. With v_i the vectors of part i, L the loss and w the weights:

    1. embed the parts, one after the other, and keep v_1 .. v_n alone
    2. L(v_1 .. v_n) and g_i = dL/dv_i
    3. embed each part again, this time for a backward pass, and add d(v_i . g_i)/dw

The sum over the parts is dL/dw, by the chain rule. Each text is embedded twice. Dropout draws the same both times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

Embed = Callable[[], torch.Tensor]
"""Embeds the texts of one part: vectors (texts, dim)."""


def cached_backward(
    parts: Sequence[Embed],
    loss_of: Callable[[list[torch.Tensor]], torch.Tensor],
    backward: Callable[[torch.Tensor], None],
    device: torch.device,
) -> torch.Tensor:
    """Run the backward pass of a loss part by part and return the loss, without its graph.

    Args:
        parts: What embeds each part of the batch.
        loss_of: Returns the loss of the vectors of all parts.
        backward: Takes the gradients of a number and adds them up; called once for each part that has any.
        device: Where chance is drawn for dropout.
    """
    states: list[list[torch.Tensor]] = []
    vectors: list[torch.Tensor] = []
    with torch.no_grad():
        for embed in parts:
            states.append(_chance(device))
            vectors.append(embed())
    leaves = [part.requires_grad_() for part in vectors]
    loss = loss_of(leaves)
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    for embed, state, gradient in zip(parts, states, gradients, strict=True):
        if gradient is not None and bool(gradient.any()):
            with _drawn_again(state, device):
                again = embed()
            backward((again * gradient).sum())
    return loss.detach()


def _chance(device: torch.device) -> list[torch.Tensor]:
    """Return the states from which the next numbers are drawn, on the CPU and on a GPU."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


@contextmanager
def _drawn_again(states: Sequence[torch.Tensor], device: torch.device) -> Iterator[None]:
    """Draw the same numbers again; afterwards chance goes on where it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.set_rng_state(states[0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(states[1], device)
        yield
