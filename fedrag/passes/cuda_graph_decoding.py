"""Greedy decoding on a GPU, a step of which is recorded (`fedrag.passes.cuda_graph`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from fedrag.models.adapters import adapter_is_on
from fedrag.models.cache_keyword import CACHE
from fedrag.passes.cuda_graph import MOST_RECORDINGS, Recorder, Recording, rounded_up
from fedrag.passes.positions import asked_at

_WIDTH = 64  # prompts are padded to a multiple of it, so that few shapes serve all
_LOOK_EVERY = 4  # steps: whoever asks whether all answers have ended waits for the GPU
# What a model's own settings may say without changing what greedy decoding finds.
_HARMLESS = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version", "use_cache"),
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "num_beams"),
    *("max_length", "max_new_tokens", "cache_implementation", "_from_model_config", "output_hidden_states"),
    *("output_attentions", "return_dict_in_generate"),
}


class RecordedDecoding:
    """Decodes answers; the keys and values of the longest batch so far stay in memory.

    Args:
        model: A causal model whose layers keep the keys and values of all tokens.
        pad: Token that fills what is no text, and follows an answer that has ended.
        ends: Tokens that end an answer.
        recorder: Records its steps.
    """

    def __init__(self, model: PreTrainedModel, pad: int, ends: Sequence[int], recorder: Recorder) -> None:
        self._model = model
        self._pad = pad
        self._ends = torch.tensor(list(ends), device=model.device)
        self._recorder = recorder
        self._steps: dict[tuple[int, int, int, bool], tuple[_Step, Recording[None] | None]] = {}
        self._memory: list[torch.Tensor] = []

    @staticmethod
    def suits(model: PreTrainedModel) -> bool:
        """Return whether greedy decoding of a model is the most probable token after token, and nothing else."""
        settings = model.generation_config
        return settings is None or set(settings.to_diff_dict()) <= _HARMLESS

    def generate(self, prompts: Sequence[Sequence[int]], most: int) -> list[list[int]]:
        """Return the new token ids of each prompt: its answer with the end token, and padding after it.

        Args:
            prompts: Token ids.
            most: Longest answer.
        """
        with torch.inference_mode():
            logits, real, cache = self._read(prompts)
            step, recording = self._step(real, cache, most)
            step.begin(logits, real, cache)
            del cache
            taken = 1
            while taken < most and (taken % _LOOK_EVERY or not bool(step.ended.all())):
                step.run() if recording is None else recording.play()
                taken += 1
            answers: list[list[int]] = step.answers[: len(prompts), :taken].tolist()
            return answers

    def _read(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor, DynamicCache]:
        """Read prompts, padded on the left, and rows that fill a shape.

        Returns:
            Logits (rows, vocabulary) of the first tokens; which places are no padding (rows, width); keys and values.
        """
        rows = rounded_up(len(prompts))
        width = -(-max(map(len, prompts)) // _WIDTH) * _WIDTH
        filled = [*prompts, *[[self._pad]] * (rows - len(prompts))]
        device = self._model.device
        ids = torch.tensor([[self._pad] * (width - len(p)) + list(p) for p in filled], device=device)
        real = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in filled], device=device)
        cache, every = DynamicCache(), torch.arange(rows, device=device)
        with asked_at(every, torch.full_like(every, width - 1), (rows, width)):
            logits = self._model(
                input_ids=ids,
                attention_mask=real,
                position_ids=(real.cumsum(dim=1) - 1).clamp(min=0),
                use_cache=True,
                **{CACHE: cache},
            ).logits
        return logits[0], real, cache

    def _step(self, real: torch.Tensor, cache: DynamicCache, most: int) -> tuple[_Step, Recording[None] | None]:
        """Return the step of decodings of a shape, with the adapter on or off as it is."""
        rows, width = real.shape
        key = (rows, width, most, adapter_is_on(self._model))
        memory = self._room(cache, width + most)
        if key not in self._steps:
            step = _Step(self._model, self._pad, self._ends, most, memory)
            recording = self._recorder.record(step.run) if len(self._steps) < MOST_RECORDINGS else None
            self._steps[key] = step, recording
        return self._steps[key]

    def _room(self, cache: DynamicCache, tokens: int) -> list[torch.Tensor]:
        """Return room for as many keys and values (rows, heads, tokens, dim) of each layer, keys first.

        All shapes use the same memory; where it is too small, what was recorded with it is dropped.
        """
        parts = _kept(cache)
        shapes = [(*part.shape[:2], tokens, part.shape[3]) for part in parts]
        if not self._memory or any(m.numel() < math.prod(s) for m, s in zip(self._memory, shapes, strict=True)):
            self._steps.clear()
            self._memory.clear()
            self._memory = [part.new_zeros(math.prod(s)) for part, s in zip(parts, shapes, strict=True)]
        return [m[: math.prod(s)].view(s) for m, s in zip(self._memory, shapes, strict=True)]


class _Step:
    """A step of a decoding: all that it reads and writes stays in place.

    Args:
        model: The model.
        pad: Follows an answer that has ended.
        ends: Tokens that end an answer (ends,).
        most: Longest answer.
        memory: Keys and values (rows, heads, tokens, dim) of each layer, keys first.

    Attributes:
        answers: What was decoded (rows, most).
        ended: Which rows have ended (rows,).
    """

    def __init__(
        self, model: PreTrainedModel, pad: int, ends: torch.Tensor, most: int, memory: Sequence[torch.Tensor]
    ) -> None:
        rows, _, tokens, _ = memory[0].shape
        self._model, self._pad, self._ends, self._memory = model, pad, ends, memory
        numbers = partial(torch.zeros, dtype=torch.long, device=ends.device)
        self._newest = numbers(rows, 1)
        self._positions = numbers(rows, 1)
        self._column = numbers(1)
        self._taken = numbers(1)
        self._seen = torch.zeros(rows, 1, 1, tokens, dtype=torch.bool, device=ends.device)
        self.ended = torch.zeros(rows, dtype=torch.bool, device=ends.device)
        self.answers = numbers(rows, most)
        self._cache = DynamicCache()
        pairs = zip(memory[::2], memory[1::2], strict=True)
        self._cache.layers = [_FixedLayer(keys, values, self._column) for keys, values in pairs]

    def begin(self, logits: torch.Tensor, real: torch.Tensor, cache: DynamicCache) -> None:
        """Begin a decoding after its prompts were read.

        Args:
            logits: Of the first tokens (rows, vocabulary).
            real: Which places of the prompts are no padding (rows, width).
            cache: Their keys and values.
        """
        width = real.shape[1]
        parts = _kept(cache)
        for own, part in zip(self._memory, parts, strict=True):
            own[:, :, :width] = part
            own[:, :, width:] = 0.0  # what is hidden is weighted with zero, and must be a number
        self._seen.zero_()
        self._seen[:, 0, 0, :width] = real.bool()
        self._positions.copy_(real.sum(dim=1, keepdim=True))
        self._column.fill_(width)
        self._taken.zero_()
        self.ended.zero_()
        self.answers.fill_(self._pad)
        self._take(logits)

    def run(self) -> None:
        """Decode one token of each row."""
        self._seen.index_fill_(3, self._column, True)
        logits = self._model(
            input_ids=self._newest,
            attention_mask=self._seen,
            position_ids=self._positions,
            use_cache=True,
            **{CACHE: self._cache},
        ).logits[:, -1]
        self._positions += 1
        self._column += 1
        self._take(logits)

    def _take(self, logits: torch.Tensor) -> None:
        tokens = logits.float().argmax(dim=-1).masked_fill(self.ended, self._pad)
        self.answers.index_copy_(1, self._taken, tokens[:, None])
        self.ended |= (tokens[:, None] == self._ends).any(dim=1)
        self._taken += 1
        self._newest.copy_(tokens[:, None])


def _kept(cache: DynamicCache) -> list[torch.Tensor]:
    """Return the keys and values of each layer, keys first."""
    layers: list[Any] = cache.layers
    return [part for layer in layers for part in (layer.keys, layer.values)]


class _FixedLayer(DynamicLayer):  # type: ignore[no-untyped-call]  # its base registers subclasses, untyped
    """A layer of a cache whose keys and values (rows, heads, tokens, dim) stay in place."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, column: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._keys, self._values, self._column = keys, values, column

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put in the keys and values of one token of each row; return those of all places."""
        self._keys.index_copy_(2, self._column, key_states)
        self._values.index_copy_(2, self._column, value_states)
        return self._keys, self._values
