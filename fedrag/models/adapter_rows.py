"""The gradient of an adapter for each row of a batch, all of them from one backward pass.

    dL/dW_i = sum_t g_it x_it^T        for row i with inputs x_it and gradients g_it at its tokens t

What Opacus' `GradSampleModule` computes (Goodfellow 2015, arXiv 1510.01799), but where autograd can be asked for it: in
several threads, under activation checkpointing, and for a layer that a pass calls more than once. To autograd each row
has weights of its own, which are the same numbers in the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from torch import nn
from torch.autograd.function import once_differentiable

from fedrag.models.adapters import stock_layers

Copies = Mapping[nn.Module, torch.Tensor]
"""For layers of an adapter the weights of all rows of a pass (rows, out, in)."""

_TOKENS_NDIM = 3  # (rows, tokens, in)


class RowsMixed(Exception):
    """A layer was given the tokens of a batch in a form that does not tell which row they belong to."""


class AdapterRows:
    """The trained layers of an adapter, whose gradients can be told apart by row.

    Args:
        model: The model.
        layers: The linear layers of its adapter that are trained.
    """

    def __init__(self, model: nn.Module, layers: Sequence[nn.Linear]) -> None:
        self._model = model
        self._layers = layers

    @classmethod
    def of(cls, model: nn.Module, parameters: Sequence[nn.Parameter]) -> AdapterRows | None:
        """Return the layers of which parameters are the weights; None where one is no linear layer of an adapter.

        Args:
            model: The model.
            parameters: Those that are trained, in the order of the gradients that are asked for.
        """
        layers = {id(layer.weight): layer for layer in _adapter_layers(model)}
        if any(id(parameter) not in layers for parameter in parameters):
            return None
        return cls(model, [layers[id(parameter)] for parameter in parameters])

    @contextmanager
    def told_apart(self) -> Iterator[None]:
        """Let the layers compute such that `gradients` can be asked for."""
        for layer in self._layers:
            layer.__class__ = _RowLinear
        try:
            with stock_layers(self._model):  # they call the adapter's layers; fedrag's own read the weights alone
                yield
        finally:
            for layer in self._layers:
                layer.__class__ = nn.Linear

    def gradients(self, rows: int, loss: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
        """Return the gradients of each row (rows, out, in), a tensor for each parameter.

        Args:
            rows: Texts of the pass.
            loss: Reads them in one pass, row after row, and returns the sum of their losses.

        Raises:
            RowsMixed: The model does not keep the rows apart.
        """
        copies = [layer.weight.detach().expand(rows, -1, -1).requires_grad_() for layer in self._layers]
        with weights_by_row(dict(zip(self._layers, copies, strict=True))):
            found = torch.autograd.grad(loss(), copies, allow_unused=True)
        return [torch.zeros_like(own) if one is None else one for own, one in zip(copies, found, strict=True)]


_COPIES: ContextVar[Copies | None] = ContextVar("_COPIES", default=None)


def current_copies() -> Copies | None:
    """Return the weights of the rows of this thread's pass; None where rows are not told apart."""
    return _COPIES.get()


@contextmanager
def weights_by_row(copies: Copies | None) -> Iterator[None]:
    """Let the passes of this thread compute each row with its own weights."""
    before = _COPIES.set(copies)
    try:
        yield
    finally:
        _COPIES.reset(before)


def _adapter_layers(model: nn.Module) -> Iterator[nn.Linear]:
    """Yield the layers of a model's adapter that PEFT calls; it multiplies the weights of experts' adapters itself."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and not isinstance(layer, ParamWrapper):
            factors = [*layer.lora_A.values(), *layer.lora_B.values()]
            yield from (factor for factor in factors if type(factor) is nn.Linear and factor.bias is None)


class _RowLinear(nn.Linear):
    """A linear layer that gives each row of a batch a gradient of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        copies = (current_copies() or {}).get(self)
        if copies is None:
            return super().forward(x)
        # As many tokens as rows could be a batch that lies crosswise.
        if x.ndim != _TOKENS_NDIM or x.shape[0] != len(copies) or x.shape[1] == len(copies):
            raise RowsMixed
        result: torch.Tensor = _RowProduct.apply(x, self.weight, copies)  # type: ignore[no-untyped-call]
        return result


class _RowProduct(torch.autograd.Function):
    """x W^T, in which the gradient of W goes to the copies of the rows (rows, out, in)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, copies: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return nn.functional.linear(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, None, torch.Tensor]:
        x, weight = ctx.saved_tensors
        down = gradient @ weight if ctx.needs_input_grad[0] else None
        return down, None, torch.bmm(gradient.transpose(1, 2), x)
