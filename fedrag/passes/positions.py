"""Only some positions of a text are asked about: what serves no other is computed for them alone.

A language model's head and what stands before it in the last layer serve each position by itself. The head over a whole
prompt is a fifth of all work, the last feed-forward block a fortieth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from fedrag.types import Example


@dataclass(frozen=True, slots=True)
class _Asked:
    """Which positions of a batch of some shape (rows, width) are asked about."""

    rows: torch.Tensor
    columns: torch.Tensor
    shape: tuple[int, int]


_ASKED: ContextVar[_Asked | None] = ContextVar("_ASKED", default=None)
"""What this thread's pass is asked; None: all positions."""


@contextmanager
def asked_at(rows: torch.Tensor, columns: torch.Tensor, shape: tuple[int, int]) -> Iterator[None]:
    """Let a model answer at some positions alone, so that its logits are (1, positions, vocabulary).

    Args:
        rows: Row of each position (positions,).
        columns: Its column (positions,).
        shape: Rows and columns of the batch.
    """
    with _asked(_Asked(rows, columns, shape)):
        yield


def answer_places(batch: Sequence[Example]) -> tuple[list[int], list[int]]:
    """Return where the answer tokens are predicted in a batch that is padded on the right: rows and columns."""
    rows = [row for row, example in enumerate(batch) for _ in example.answer]
    columns = [len(example.prompt) - 1 + t for example in batch for t in range(len(example.answer))]
    return rows, columns


def what_is_asked() -> AbstractContextManager[None]:
    """Return a context in which the same is asked as now."""
    return _asked(_ASKED.get())


@contextmanager
def _asked(asked: _Asked | None) -> Iterator[None]:
    before = _ASKED.set(asked)
    try:
        yield
    finally:
        _ASKED.reset(before)


def answer_where_asked(model: PreTrainedModel) -> None:
    """Make a model's head look at what `asked_at` says, and the feed-forward block of its last layer where it has one.

    Hooks work for every architecture and keep what a model does to its logits afterwards.
    """
    model.get_output_embeddings().register_forward_pre_hook(_select)  # type: ignore[no-untyped-call]  # transformers gives it no types
    layers = getattr(model.base_model, "layers", None)
    block = getattr(layers[-1], "mlp", None) if isinstance(layers, nn.ModuleList) else None
    if isinstance(block, nn.Module) and not model.config.is_encoder_decoder:
        block.register_forward_pre_hook(_select)
        block.register_forward_hook(_spread)


def _select(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    asked = _ASKED.get()
    hidden, *others = inputs
    if asked is None:
        return (
            hidden.contiguous(),
            *others,
        )  # a product over a slice of positions would copy its weights for every row
    return (hidden[asked.rows, asked.columns].unsqueeze(0), *others)


def _spread(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
    """Put the results where they belong; the other positions get zeros, and nobody looks at them."""
    asked = _ASKED.get()
    if asked is None:
        return None
    if isinstance(output, tuple):  # a mixture of experts may say whom it asked
        return (_everywhere(output[0], asked), *output[1:])
    return _everywhere(output, asked)


def _everywhere(found: torch.Tensor, asked: _Asked) -> torch.Tensor:
    everywhere = found.new_zeros(*asked.shape, found.shape[-1])
    everywhere[asked.rows, asked.columns] = found[0]
    return everywhere
