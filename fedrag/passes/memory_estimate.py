"""Estimates the memory of a training step, and the tokens that a generator reads at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fedrag.models import attention
from fedrag.models.generator import Generator
from fedrag.types import Example

_MARGIN = 1.6  # on the saved tensors: those of the backward pass itself, and memory that the allocator cannot reuse
_SCORE_BYTES = 12  # a score of unfused attention: softmax in float32, its copy, dropout's mask and result
_LOGIT_BYTES = 12  # besides the logit itself: its log-probability and two gradients, float32
_STATE_BYTES = 16  # a weight of the adapter: two gradients and the two moments of AdamW, float32
_TIMES_ON_A_GPU = 8  # launching the kernels of a pass takes as long for few tokens as for many
_SHARE = 0.25  # of the GPU's whole memory, not of the free part: the same run must make the same passes


@dataclass(frozen=True, slots=True)
class Footprint:
    """The tensors that a generator saves for the backward pass, counted from its shape.

    Each linear layer counts with its input and its output: the adapter needs the one, the next operation the other.
    Inputs that layers share are counted several times, which about makes up for norms and activation functions, which
    are not counted. Nor are the experts of a mixture, which are not linear layers.

    Attributes:
        seq2seq: Whether prompts go to an encoder.
        prompt_width: Numbers saved for a token that the encoder, or a causal model, reads.
        answer_width: Numbers saved for a token that the decoder reads.
        heads: Attention heads of all layers.
        score_bytes: Bytes saved for one score of one head; 0 where attention is fused.
        in_blocks: Whether attention saves fewer than all scores, see `fedrag.models.attention`.
        vocabulary: Logits of a position.
        itemsize: Bytes of a number.
        adapter: Trainable weights.
    """

    seq2seq: bool
    prompt_width: float
    answer_width: float
    heads: int
    score_bytes: int
    in_blocks: bool
    vocabulary: int
    itemsize: int
    adapter: int

    @classmethod
    def of(cls, generator: Generator) -> Footprint:
        """Return the footprint of a generator with its adapter."""
        model: Any = generator.model  # its parts are not typed
        config = model.config.get_text_config()
        prompt_width = answer_width = float(_width(model))
        if generator.seq2seq:
            answer_width = float(_width(model.get_decoder()))
            # At most a quarter of a decoder's numbers are keys and values of the prompt.
            prompt_width = _width(model.get_encoder()) + answer_width / 4
        return cls(
            seq2seq=generator.seq2seq,
            prompt_width=prompt_width,
            answer_width=answer_width,
            heads=getattr(config, "num_attention_heads", 0) * config.num_hidden_layers,
            score_bytes=_score_bytes(model),
            in_blocks=attention.uses_products(model),
            vocabulary=config.vocab_size,
            itemsize=generator.dtype.itemsize,
            adapter=sum(parameter.numel() for parameter in generator.parameters().values()),
        )

    @property
    def token_bytes(self) -> float:
        """Bytes that a forward pass saves for a token of a prompt, without attention scores and logits."""
        return self.prompt_width * self.itemsize

    def step_bytes(self, batches: Iterable[Sequence[Example]], passes: int = 1) -> float:
        """Return the bytes that the largest of some forward and backward passes needs, rather too many than too few.

        Measured with SmolLM2-135M on a CPU, in one thread: for 4 texts of 256 tokens, 32 of each the answer, the
        process grew by 1.83 GB in float32 and by 1.07 GB in bfloat16, and the estimate is 1.4 and 1.3 times that; for
        2 texts of 768 tokens it is 1.5 times.

        Args:
            batches: The examples of each pass, which are padded to the longest.
            passes: How many run at a time.
        """
        return passes * _MARGIN * max(map(self._saved_bytes, batches), default=0.0) + _STATE_BYTES * self.adapter

    def _saved_bytes(self, batch: Sequence[Example]) -> float:
        """Return the bytes that one forward pass saves, the gradients of its logits included."""
        prompt = max(len(example.prompt) for example in batch)
        answer = max(len(example.answer) for example in batch)
        if self.seq2seq:
            numbers = prompt * self.prompt_width + answer * self.answer_width
            scores = prompt * prompt + answer * prompt + answer * answer
            logits = len(batch) * answer
        else:
            tokens = max(example.length for example in batch)
            numbers = tokens * self.prompt_width
            scores = attention.saved_scores(tokens) if self.in_blocks else tokens * tokens
            logits = sum(len(example.answer) for example in batch)
        saved = numbers * self.itemsize + scores * self.heads * self.score_bytes
        return len(batch) * saved + logits * self.vocabulary * (self.itemsize + _LOGIT_BYTES)


def tokens_at_a_time(generator: Generator, asked: int, on_a_cpu: int) -> int:
    """Return the tokens that passes running at a time may read together.

    Args:
        generator: The generator.
        asked: The number that the scenario sets; 0: none.
        on_a_cpu: The number that suits a CPU; a GPU takes up to eight times as many.
    """
    device = generator.model.device
    if asked or device.type != "cuda":
        return asked or on_a_cpu
    memory = torch.cuda.get_device_properties(device).total_memory
    fitting = int(_SHARE * memory / Footprint.of(generator).token_bytes)
    return max(on_a_cpu, min(fitting, _TIMES_ON_A_GPU * on_a_cpu))


def _width(part: nn.Module) -> int:
    """Return the inputs and outputs of all frozen linear layers but the head, summed."""
    head = part.get_output_embeddings() if isinstance(part, PreTrainedModel) else None  # type: ignore[no-untyped-call]  # transformers gives it no types
    return sum(
        _inputs_and_outputs(layer)
        for name, layer in part.named_modules()
        if isinstance(layer, (nn.Linear, Conv1D)) and layer is not head and ".lora_" not in name
    )


def _inputs_and_outputs(layer: nn.Linear | Conv1D) -> int:
    """Return the layer's own numbers; in 4 bits its weights have the shape of the packed ones."""
    return layer.in_features + layer.out_features if isinstance(layer, nn.Linear) else sum(layer.weight.shape)


def _score_bytes(model: PreTrainedModel) -> int:
    rates = {name: value for name, value in model.config.to_dict().items() if "drop" in name}
    # Most architectures have a rate for attention; T5 has one for everything.
    of_attention = {name: value for name, value in rates.items() if "att" in name} or rates
    implementation = str(model.config._attn_implementation)
    if any(of_attention.values()):  # with dropout torch's attention is plain products, whatever kernel is set
        return _SCORE_BYTES
    if attention.uses_products(model):
        return model.dtype.itemsize
    fused = attention.uses_cpu_attention(model) or implementation == "sdpa" or "flash" in implementation
    return 0 if fused else _SCORE_BYTES
