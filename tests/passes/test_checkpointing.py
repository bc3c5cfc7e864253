"""Activation checkpointing saves far less for the backward pass, and the memory of a step is estimated in advance."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from fedrag.config.training_settings import LoraSection
from fedrag.errors import ModelError
from fedrag.models.generator import Generator
from fedrag.passes.checkpointing import layers_checkpointed
from fedrag.passes.memory_estimate import Footprint
from fedrag.passes.reading import answer_logits
from fedrag.training.losses import answer_loss
from fedrag.types import Example
from fedrag.weights.store import find_model

KINDS = ("causal", "seq2seq")


def batch_of(rows: int, prompt: int, answer: int) -> list[Example]:
    return [Example([40 + row] * prompt, [50 + row] * answer) for row in range(rows)]


def kept_bytes(generator: Generator, batch: list[Example], checkpointed: bool = False) -> int:
    """Return the bytes that one forward pass in training mode saves for the backward pass; each storage counts once."""
    kept: dict[int, torch.UntypedStorage] = {}
    weights = {p.untyped_storage().data_ptr() for p in generator.model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    for parameter in generator.parameters().values():
        parameter.requires_grad_(True)
    generator.model.train()
    with (
        layers_checkpointed(generator.model) if checkpointed else nullcontext(),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        answer_loss(*answer_logits(generator, batch))
    generator.model.train(False)
    return sum(storage.nbytes() for storage in kept.values())


# What it does


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointed_layers_keep_far_less_for_the_backward_pass(load_generator, kind):
    generator = load_generator(kind)
    batch = batch_of(rows=3, prompt=400, answer=4)
    whole = kept_bytes(generator, batch)
    assert kept_bytes(generator, batch, checkpointed=True) < 0.12 * whole
    assert kept_bytes(generator, batch) == whole  # nothing of it stays


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_it_stays_whatever_happens_within(load_generator, kind):
    model = load_generator(kind).model
    hooks = [len(module._forward_hooks) for module in model.modules()]
    counts: list[int] = []

    def count() -> None:
        counts.append(sum(getattr(module, "gradient_checkpointing", False) for module in model.modules()))

    def break_within() -> None:
        with layers_checkpointed(model):
            count()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_within()
    count()
    assert counts[0] >= 2
    assert counts[1] == 0
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_the_frozen_embeddings_is_not_asked_for(load_generator, kind):
    generator = load_generator(kind)
    embedded: list[torch.Tensor] = []
    for module in generator.model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.register_forward_hook(lambda module, inputs, output: embedded.append(output))
    kept_bytes(generator, batch_of(1, 8, 2), checkpointed=True)
    assert embedded
    assert not any(output.requires_grad for output in embedded)


def test_an_architecture_that_cannot_is_told_by_name(load_generator):
    model = load_generator().model
    model.supports_gradient_checkpointing = False
    with (
        pytest.raises(ModelError, match=r"^LlamaForCausalLM cannot .*generator\.activation_checkpointing"),
        layers_checkpointed(model),
    ):
        pass


# What it would need


def test_a_step_is_estimated_from_rows_tokens_widths_and_answers(load_generator):
    """Two layers of width 32 and 64: four linear layers of attention, three of the rest; inputs and outputs of each."""
    footprint = Footprint.of(load_generator(rank=4))
    width = 2 * (4 * (32 + 32) + 3 * (32 + 64))
    adapter = 2 * 4 * (4 * (32 + 32) + 3 * (32 + 64))
    batch = [Example([1] * 20, [2] * 3), Example([1] * 10, [2] * 5)]
    scores = 2 * 2 * 23 * 23  # of two heads in each layer
    kept = 2 * (23 * width + scores) * 4 + (3 + 5) * footprint.vocabulary * (4 + 12)
    assert footprint.step_bytes([batch]) == 1.6 * kept + 16 * adapter


def test_the_largest_of_all_passes_counts(load_generator):
    footprint = Footprint.of(load_generator())
    small, large = batch_of(2, 10, 2), batch_of(2, 50, 2)
    assert footprint.step_bytes([small, large, small]) == footprint.step_bytes([large]) > footprint.step_bytes([small])


SHAPES = [(1, 64, 8), (4, 400, 4), (2, 30, 60), (1, 700, 1)]


@pytest.mark.parametrize(("rows", "prompt", "answer"), SHAPES)
@pytest.mark.parametrize(
    ("kind", "dtype"), [(kind, dtype) for kind in KINDS for dtype in (torch.float32, torch.bfloat16)]
)
def test_the_estimate_is_more_than_is_kept_and_not_far_more(load_generator, kind, dtype, rows, prompt, answer):
    generator = load_generator(kind, dtype=dtype)
    batch = batch_of(rows, prompt, answer)
    footprint = Footprint.of(generator)
    passes = footprint.step_bytes([batch]) - footprint.step_bytes([])
    assert 1.0 < passes / kept_bytes(generator, batch) < 2.5


@pytest.mark.slow
@pytest.mark.usefixtures("real_models")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_estimate_fits_the_real_generator(dtype):
    fetched = find_model("HuggingFaceTB/SmolLM2-135M-Instruct")
    generator = Generator.load(fetched, LoraSection(), dtype, "cpu")
    batch = batch_of(rows=1, prompt=224, answer=32)
    estimate = Footprint.of(generator).step_bytes([batch])
    whole = kept_bytes(generator, batch)
    assert 1.2 < estimate / whole < 2.2
    assert kept_bytes(generator, batch, checkpointed=True) < 0.2 * whole
