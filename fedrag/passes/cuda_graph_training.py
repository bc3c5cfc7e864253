"""Training passes on a GPU: padded to a few shapes, and captured as CUDA graphs (`fedrag.passes.cuda_graph`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from fedrag.models.adapters import lora_parameters
from fedrag.models.cache_keyword import CACHE
from fedrag.passes.cuda_graph import MOST_GRAPHS, CapturedGraph, GraphCapture, rounded_up
from fedrag.types import Example

_IGNORED = -100  # the label that torch's cross entropy leaves out

_Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
LossAndGradients = tuple[torch.Tensor, list[torch.Tensor | None]]
"""A loss, and the gradients of the adapter's parameters; None where the loss does not depend on one."""


class CapturedPasses:
    """Forward and backward passes of a causal model and its adapter, one CUDA graph for each shape.

    Args:
        model: The model with its adapter; its computation depends on the shape of its input alone.
        pad_id: The token that fills rows.
        graph_capture: Captures the passes.
    """

    def __init__(self, model: PreTrainedModel, pad_id: int, graph_capture: GraphCapture) -> None:
        self._model = model
        self._pad_id = pad_id
        self._graph_capture = graph_capture
        self._parameters = list(lora_parameters(model).values())
        self._gradients = [torch.empty_like(p, dtype=torch.float32, requires_grad=False) for p in self._parameters]
        self._graphs: dict[tuple[_Loss, _Shape], tuple[_Inputs, CapturedGraph[LossAndGradients] | None]] = {}

    def forward_backward(self, batch: Sequence[Example], loss: _Loss, answer_tokens: int) -> LossAndGradients:
        """Return the loss of a batch and the adapter's gradients, in tensors that the next call overwrites.

        Args:
            batch: Examples; they are padded on the right.
            loss: Sums over the answer tokens whose label is not -100.
            answer_tokens: Divides the loss.
        """
        shape = _Shape.of(batch)
        new = _padded_inputs(batch, shape, self._pad_id, 1.0 / answer_tokens)
        if (loss, shape) not in self._graphs:
            self._graphs[loss, shape] = self._capture(new, loss)
        inputs, graph = self._graphs[loss, shape]
        for own, part in zip(inputs, new, strict=True):
            own.copy_(part)
        if graph is None:
            return self._run(inputs, loss)
        graph.replay()
        return graph.output

    def _capture(self, new: _Inputs, loss: _Loss) -> tuple[_Inputs, CapturedGraph[LossAndGradients] | None]:
        """Return tensors for the inputs of a shape and the graph that reads them; None where there is no graph."""
        inputs = _Inputs(*(part.to(self._model.device) for part in new))
        if len(self._graphs) >= MOST_GRAPHS:
            return inputs, None
        return inputs, self._graph_capture.capture(lambda: self._run(inputs, loss))

    def _run(self, inputs: _Inputs, loss: _Loss) -> LossAndGradients:
        cache: dict[str, Any] = {CACHE: _pass_through_cache(self._model)}
        logits = self._model(input_ids=inputs.ids, use_cache=True, logits_to_keep=inputs.positions, **cache).logits
        mean = loss(logits.flatten(0, 1), inputs.labels) * inputs.factor
        found = torch.autograd.grad(mean, self._parameters, allow_unused=True)
        gradients: list[torch.Tensor | None] = [
            None if new is None else own for own, new in zip(self._gradients, found, strict=True)
        ]
        torch._foreach_copy_([own for own in gradients if own is not None], [new for new in found if new is not None])
        return mean.detach(), gradients


class _Inputs(NamedTuple):
    """The inputs of a pass.

    Attributes:
        ids: Token ids (rows, width).
        positions: Positions of the logits in each row (rows, answer tokens). The model would read a mask back from the
            GPU, which cannot be captured.
        labels: The answer tokens (rows * answer tokens,); -100 where a row has fewer.
        factor: Multiplies the loss, ().
    """

    ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    factor: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Shape:
    """The shape of a pass: rows, width, and answer tokens of a row."""

    rows: int
    width: int
    answer: int

    @classmethod
    def of(cls, batch: Sequence[Example]) -> _Shape:
        """Return the shape to which a batch is padded, with at least one column of padding."""
        longest = max(example.length for example in batch)
        answer = max(len(example.answer) for example in batch)
        return cls(rounded_up(len(batch)), max(64, rounded_up(longest + 1)), max(16, rounded_up(answer)))


def _padded_inputs(batch: Sequence[Example], shape: _Shape, pad_id: int, factor: float) -> _Inputs:
    """Return the inputs for a batch, padded to a shape, on the CPU."""
    ids = torch.full((shape.rows, shape.width), pad_id)
    # Superfluous positions point at padding; their labels are ignored, so their gradient is zero.
    positions = torch.full((shape.rows, shape.answer), shape.width - 1)
    labels = torch.full((shape.rows, shape.answer), _IGNORED)
    for row, example in enumerate(batch):
        text = example.prompt + example.answer[:-1]
        ids[row, : len(text)] = torch.tensor(text)
        length = len(example.answer)
        positions[row, :length] = torch.arange(len(example.prompt) - 1, len(text))
        labels[row, :length] = torch.tensor(example.answer)
    return _Inputs(ids, positions, labels.flatten(), torch.tensor(factor))


class _PassThroughLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # its base registers subclasses, untyped
    """A cache layer that stores nothing."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the given keys and values."""
        return key_states, value_states


def _pass_through_cache(model: PreTrainedModel) -> DynamicCache:
    """Return a KV cache that stores nothing.

    Without a cache a model checks whether a row holds several texts. The check reads positions back from the GPU, which
    cannot be captured, and builds a mask; fused attention is faster without one.
    """
    cache = DynamicCache()
    layers = model.config.get_text_config().num_hidden_layers
    cache.layers = [_PassThroughLayer() for _ in range(layers)]  # type: ignore[no-untyped-call]
    return cache
