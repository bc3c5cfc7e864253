"""Low-rank adapters (LoRA, Hu et al. 2021); with `lora_linear` the only module that knows peft.

An adapter is injected into a model in place. The model keeps its class and its base weights; in the number format of
the base the adapter adds two thin products to each layer and no casts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.numpy import save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fedrag.config.scenario import LoraSection
from fedrag.errors import ModelError
from fedrag.models.lora_linear import accumulate_in_place
from fedrag.types import Tensors

_ADAPTER = "default"


def add_lora(model: nn.Module, lora: LoraSection, exclude: Sequence[str] = ()) -> tuple[str, ...]:
    """Freeze a model and inject an adapter into its linear layers.

    Args:
        model: Changed in place.
        lora: Rank, scale and target names; no targets: all linear layers.
        exclude: Names of layers that get no adapter.

    Returns:
        The names of the adapted layers, as an adapter's configuration states them.

    Raises:
        ModelError: A named target is not a linear layer of this model.
    """
    targets = lora.targets or _linear_names(model, exclude)
    known = _linear_names(model, ())
    for target in targets:
        if target not in known:
            raise ModelError(f'lora.targets: "{target}" is not a linear layer of this model; it has {", ".join(known)}')
    model.requires_grad_(False)
    # PEFT matches plain names against the end of each module's path, so exclusions must be whole paths.
    paths = [name for name, _ in model.named_modules() if any(part in exclude for part in name.split("."))]
    config = peft_config(lora, targets)
    config.exclude_modules = paths or None
    inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
    accumulate_in_place(model)
    return tuple(targets)


def peft_config(lora: LoraSection, targets: Sequence[str], task_type: str | None = None) -> LoraConfig:
    """Return the PEFT configuration of an adapter."""
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(targets),
        lora_dropout=0.0,
        task_type=task_type,
    )


def lora_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the adapter's parameters by name, `<layer>.lora_A.weight` and `<layer>.lora_B.weight`."""
    return {
        name.replace(f".{_ADAPTER}.", "."): parameter
        for name, parameter in model.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }


@contextmanager
def adapter_disabled(model: nn.Module) -> Iterator[None]:
    """Run exactly the base model, as if it had no adapter; contexts may be nested."""
    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer) and not m.disable_adapters]
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def initial_lora(shapes: dict[str, tuple[int, ...]], seed: int) -> Tensors:
    """Return the state from which every site starts: A uniform in +-1/sqrt(n), B zero, so that B A = 0.

    All sites have the same A: the average of independent random ones would shrink towards zero.

    Args:
        shapes: Shapes by parameter name; A is (rank, n), B is (d, rank).
        seed: Seed of this component.
    """
    generator = np.random.default_rng(seed)
    state: Tensors = {}
    for name, shape in shapes.items():
        if ".lora_A." in name:
            bound = 1.0 / math.sqrt(shape[1])
            state[name] = generator.uniform(-bound, bound, shape).astype(np.float32)
        else:
            state[name] = np.zeros(shape, np.float32)
    return state


def remove_lora(model: nn.Module, *, merge: bool) -> None:
    """Remove the adapter for export, merged into the base weights or dropped."""
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            if merge:
                module.merge()
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.get_base_layer())


def save_adapter(
    folder: Path,
    tensors: Tensors,
    lora: LoraSection,
    targets: Sequence[str],
    base: str,
    task_type: str,
    invocation: Sequence[int] | None = None,
) -> None:
    """Write an adapter folder that `PeftModel.from_pretrained` loads onto the base model.

    Args:
        folder: The new folder.
        tensors: The adapter.
        lora: Its settings.
        targets: Names of the adapted layers.
        base: Name of the base model.
        task_type: PEFT's name for the model's task.
        invocation: Token ids; the adapter acts from their last occurrence on. None: it acts on every token.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = peft_config(lora, targets, task_type).to_dict()
    config |= {"base_model_name_or_path": base, "inference_mode": True, "target_modules": sorted(targets)}
    if invocation is not None:
        config["alora_invocation_tokens"] = list(invocation)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, default=_plain), encoding="utf-8")
    renamed = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    save_file(renamed, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _linear_names(model: nn.Module, exclude: Sequence[str]) -> tuple[str, ...]:
    """Return the last parts of the names of all linear layers but the output head, sorted."""
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None  # type: ignore[no-untyped-call]  # transformers gives it no types
    names: set[str] = set()
    for name, module in model.named_modules():
        excluded = module is head or any(part in exclude for part in name.split("."))
        if isinstance(module, (nn.Linear, Conv1D)) and not excluded:
            names.add(name.rpartition(".")[2])
    return tuple(sorted(names))


def _plain(value: object) -> object:
    """Turn PEFT's enums and sets into JSON values."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return getattr(value, "value", str(value))


def as_tensor(array: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """Return a copy of a numpy array on the device and in the dtype of another tensor."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device, like.dtype, copy=True)
