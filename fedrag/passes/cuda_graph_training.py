"""Training passes on a GPU, padded to few shapes and recorded (`fedrag.passes.cuda_graph`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from fedrag.models.adapters import lora_parameters
from fedrag.models.cache_keyword import CACHE
from fedrag.passes.cuda_graph import MOST_RECORDINGS, Recorder, Recording, rounded_up
from fedrag.types import Example

_IGNORED = -100  # the label that torch's cross entropy leaves out

_Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Pass = tuple[torch.Tensor, list[torch.Tensor | None]]
"""A loss, and the gradients of the adapter's parameters: None where the loss does not depend on one."""


class RecordedPasses:
    """Forward and backward passes of a causal model through its adapter.

    Args:
        model: With its adapter; what it computes depends on the shape of its input alone.
        pad: Token that fills what is no text.
        recorder: Records them.
    """

    def __init__(self, model: PreTrainedModel, pad: int, recorder: Recorder) -> None:
        self._model = model
        self._pad = pad
        self._recorder = recorder
        self._parameters = list(lora_parameters(model).values())
        self._gradients = [torch.empty_like(p, dtype=torch.float32, requires_grad=False) for p in self._parameters]
        self._recordings: dict[tuple[_Loss, _Shape], tuple[_Inputs, Recording[Pass] | None]] = {}

    def learn(self, batch: Sequence[Example], loss: _Loss, answer_tokens: int) -> Pass:
        """Return the loss of a batch and the adapter's gradients, in tensors that the next call overwrites.

        Args:
            batch: Examples, padded on the right.
            loss: Summed over the answer tokens whose label is not -100.
            answer_tokens: The loss is divided by it.
        """
        shape = _Shape.of(batch)
        new = _inputs(batch, shape, self._pad, 1.0 / answer_tokens)
        if (loss, shape) not in self._recordings:
            inputs = _Inputs(*(part.to(self._model.device) for part in new))
            many = len(self._recordings) >= MOST_RECORDINGS
            recording = None if many else self._recorder.record(lambda: self._run(inputs, loss))
            self._recordings[loss, shape] = inputs, recording
        inputs, recording = self._recordings[loss, shape]
        for own, part in zip(inputs, new, strict=True):
            own.copy_(part)
        if recording is None:
            return self._run(inputs, loss)
        recording.play()
        return recording.made

    def _run(self, inputs: _Inputs, loss: _Loss) -> Pass:
        passing: dict[str, Any] = {CACHE: _passing(self._model)}
        logits = self._model(input_ids=inputs.ids, use_cache=True, logits_to_keep=inputs.places, **passing).logits
        mean = loss(logits.flatten(0, 1), inputs.labels) * inputs.share
        found = torch.autograd.grad(mean, self._parameters, allow_unused=True)
        made: list[torch.Tensor | None] = [
            None if new is None else own for own, new in zip(self._gradients, found, strict=True)
        ]
        torch._foreach_copy_([own for own in made if own is not None], [new for new in found if new is not None])
        return mean.detach(), made


class _Inputs(NamedTuple):
    """What a pass reads.

    Attributes:
        ids: Token ids (rows, width).
        places: Where each row is asked (rows, answer tokens): a mask would be looked at, which cannot be recorded.
        labels: Its answer tokens (rows * answer tokens,); -100 where nothing is asked.
        share: Factor on the loss, ().
    """

    ids: torch.Tensor
    places: torch.Tensor
    labels: torch.Tensor
    share: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Shape:
    """Shape of a pass: rows, width, answer tokens of a row."""

    rows: int
    width: int
    answer: int

    @classmethod
    def of(cls, batch: Sequence[Example]) -> _Shape:
        """Return the shape that a batch is padded to, with a column of padding at least."""
        longest = max(example.length for example in batch)
        answer = max(len(example.answer) for example in batch)
        return cls(rounded_up(len(batch)), max(64, rounded_up(longest + 1)), max(16, rounded_up(answer)))


def _inputs(batch: Sequence[Example], shape: _Shape, pad: int, share: float) -> _Inputs:
    """Return a batch, padded to a shape, on the CPU."""
    ids = torch.full((shape.rows, shape.width), pad)
    # What is asked about for nothing is padding, which no text sees: its gradient is zero.
    places = torch.full((shape.rows, shape.answer), shape.width - 1)
    labels = torch.full((shape.rows, shape.answer), _IGNORED)
    for row, example in enumerate(batch):
        text = example.prompt + example.answer[:-1]
        ids[row, : len(text)] = torch.tensor(text)
        asked = len(example.answer)
        places[row, :asked] = torch.arange(len(example.prompt) - 1, len(text))
        labels[row, :asked] = torch.tensor(example.answer)
    return _Inputs(ids, places, labels.flatten(), torch.tensor(share))


class _PassingLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # its base registers subclasses, untyped
    """A layer of a cache that keeps nothing."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what it is given."""
        return key_states, value_states


def _passing(model: PreTrainedModel) -> DynamicCache:
    """Return a cache that keeps nothing, for rows that hold one text each.

    Without a cache a model looks whether a row holds several texts. It cannot look while it is recorded, and would
    build a mask: fused attention without one is quicker.
    """
    cache = DynamicCache()
    layers = model.config.get_text_config().num_hidden_layers
    cache.layers = [_PassingLayer() for _ in range(layers)]  # type: ignore[no-untyped-call]
    return cache
