"""Low-rank adapters (LoRA, Hu et al. 2021); with `lora_linear` the only module that knows peft.

An adapter is injected into a model in place. The model keeps its class and its base weights; in the number format of
the base the adapter adds two thin products to each layer and no casts.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import Linear, ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.numpy import save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fedrag.config.training_settings import LoraSection
from fedrag.errors import ModelError
from fedrag.models.lora_linear import LoraLinear, accumulate_in_place
from fedrag.types import Tensors

_ADAPTER = "default"
_EXPERT_DIMENSIONS = 3
_NAMED = 6  # layers that a sentence names


@dataclass(frozen=True, slots=True)
class Targets:
    """What of a model an adapter acts on, as PEFT's configuration states it.

    Attributes:
        modules: Names of linear layers.
        parameters: Names of the weights of a mixture's experts, which lie in one tensor for all experts.
    """

    modules: tuple[str, ...]
    parameters: tuple[str, ...] = ()


def lora_targets(model: nn.Module, lora: LoraSection, exclude: Sequence[str] = ()) -> Targets:
    """Return what an adapter acts on: what its settings name, or all linear layers and all experts.

    Args:
        model: The model, with or without weights.
        lora: Its settings.
        exclude: Names of layers that get no adapter.

    Raises:
        ModelError: A named target is not a linear layer of this model, or the model has none.
    """
    experts = _expert_names(model)
    if not lora.targets:
        targets = Targets(_linear_names(model, exclude), experts)
        if not targets.modules and not experts:
            raise ModelError(
                "has no linear layer that an adapter could act on; a retriever can train all its weights: set "
                'retriever.weights = "full"'
            )
        return targets
    known = (*_linear_names(model, ()), *experts)
    for target in lora.targets:
        if target not in known:
            raise ModelError(f'lora.targets: "{target}" is not a linear layer of this model; it has {", ".join(known)}')
    named = tuple(target for target in lora.targets if target not in experts)
    return Targets(named, tuple(target for target in lora.targets if target in experts))


def add_lora(model: nn.Module, lora: LoraSection, exclude: Sequence[str] = ()) -> Targets:
    """Freeze a model and inject an adapter into its linear layers and its experts.

    Args:
        model: Changed in place.
        lora: Rank, scale and target names; no targets: all linear layers and all experts.
        exclude: Names of layers that get no adapter.

    Returns:
        What the adapter acts on.

    Raises:
        ModelError: A named target is not a linear layer of this model.
    """
    targets = lora_targets(model, lora, exclude)
    model.requires_grad_(False)
    # PEFT matches plain names against the end of each module's path, so exclusions must be whole paths.
    paths = [name for name, _ in model.named_modules() if any(part in exclude for part in name.split("."))]
    config = peft_config(lora, targets)
    config.exclude_modules = paths or None
    inject_adapter_in_model(config, _for_peft(model), adapter_name=_ADAPTER)
    accumulate_in_place(model)
    return targets


def _for_peft(model: nn.Module) -> nn.Module:
    """Return what PEFT is given: a transformer itself, anything else inside a module without a configuration.

    A sentence-transformers model has its transformer's configuration, and PEFT would take it for a transformer.
    """
    return model if isinstance(model, PreTrainedModel) else nn.ModuleDict({"encoder": model})


def peft_config(lora: LoraSection, targets: Targets, task_type: str | None = None) -> LoraConfig:
    """Return the PEFT configuration of an adapter."""
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(targets.modules),
        target_parameters=list(targets.parameters) or None,
        lora_dropout=0.0,
        task_type=task_type,
    )


def lora_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the adapter's parameters by name, `<layer>.lora_A.weight` and `<layer>.lora_B.weight`."""
    return {
        name.replace(f".{_ADAPTER}.", "."): parameter
        for name, parameter in model.named_parameters()
        if f".lora_A.{_ADAPTER}." in name or f".lora_B.{_ADAPTER}." in name
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


@contextmanager
def stock_layers(model: nn.Module) -> Iterator[None]:
    """Let the adapted linear layers compute as PEFT's own."""
    layers = [module for module in model.modules() if type(module) is LoraLinear]
    for layer in layers:
        layer.__class__ = Linear
    try:
        yield
    finally:
        for layer in layers:
            layer.__class__ = LoraLinear


def adapted_weights(model: nn.Module) -> str:
    """Return in words what of a model its adapter acts on, and what not."""
    covered = {id(weight) for layer in _adapter_layers(model) for weight in _weights_of(layer)}
    base = {name: parameter for name, parameter in model.named_parameters() if ".lora_" not in name}
    acts_on = {_layer_name(name) for name, parameter in base.items() if id(parameter) in covered}
    left: Counter[str] = Counter()
    for name, parameter in base.items():
        if id(parameter) not in covered:
            short = _layer_name(name)
            left[".".join(name.split(".")[-3:-1]) if short in acts_on else short] += parameter.numel()
    total = sum(parameter.numel() for parameter in base.values())
    largest = [name for name, _ in left.most_common(_NAMED)] + ["others"] * (len(left) > _NAMED)
    return (
        f"acts on {', '.join(sorted(acts_on))}; not on {', '.join(largest)} ({left.total() / total:.0%} of the weights)"
    )


def _adapter_layers(model: nn.Module) -> list[BaseTunerLayer]:
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


def _weights_of(layer: BaseTunerLayer) -> list[nn.Parameter]:
    """Return the base weights that an adapted layer acts on, biases of a linear layer among them."""
    base = layer.get_base_layer()
    return [getattr(base, layer.parameter_name)] if isinstance(layer, ParamWrapper) else list(base.parameters())


def _layer_name(parameter: str) -> str:
    """Return the short name of a weight's layer.

    >>> _layer_name("layers.0.q_proj.base_layer.weight"), _layer_name("layers.0.experts.down_proj")
    ('q_proj', 'experts.down_proj')
    """
    parts = [part for part in parameter.split(".") if part != "base_layer"]
    return parts[-2] if parts[-1] in ("weight", "bias") and len(parts) > 1 else ".".join(parts[-2:])


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
    targets: Targets,
    base: str,
    task_type: str,
    invocation: Sequence[int] | None = None,
    revision: str | None = None,
) -> None:
    """Write an adapter folder that `PeftModel.from_pretrained` loads onto the base model.

    Args:
        folder: The new folder.
        tensors: The adapter.
        lora: Its settings.
        targets: What the adapter acts on.
        base: Name of the base model.
        task_type: PEFT's name for the model's task.
        invocation: Token ids; the adapter acts from their last occurrence on. None: it acts on every token.
        revision: The hub's revision of the base model, where one is known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = peft_config(lora, targets, task_type).to_dict()
    config |= {"base_model_name_or_path": base, "revision": revision, "inference_mode": True}
    config["target_modules"] = sorted(targets.modules)
    if invocation is not None:
        config["alora_invocation_tokens"] = list(invocation)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, default=_plain), encoding="utf-8")
    renamed = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    save_file(renamed, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _linear_names(model: nn.Module, exclude: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all linear layers but the output head, sorted.

    A name is the last part of a layer's path, or more of it where another module's path ends in the same way: PEFT
    would adapt that one too.
    """
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None  # type: ignore[no-untyped-call]  # transformers gives it no types
    linear: list[str] = []
    others: list[str] = []
    for name, module in model.named_modules():
        excluded = module is head or any(part in exclude for part in name.split("."))
        is_linear = isinstance(module, (nn.Linear, Conv1D)) and not excluded and not _takes_no_adapter(model, name)
        (linear if is_linear else others).append(name)
    return tuple(sorted({_shortest_name(name, others) for name in linear}))


def _shortest_name(path: str, others: Sequence[str]) -> str:
    """Return the shortest end of a path that no other path ends in.

    >>> _shortest_name("layers.0.ffn.0", ["layers.0", "layers.0.ffn"])
    'ffn.0'
    """
    parts = path.split(".")
    ends = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
    return next((end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others)), path)


def _takes_no_adapter(model: nn.Module, path: str) -> bool:
    """Return whether an adapter cannot act on a linear layer.

    A router of experts is a linear layer that returns a tuple. State-space layers multiply by the weight of some layers
    without calling them; PEFT refuses two of these.
    """
    parts = path.split(".")
    if "router" in type(model.get_submodule(path)).__name__.lower():
        return True
    kind = getattr(getattr(model, "config", None), "model_type", "")
    return "mamba" in f"{kind} {type(model.get_submodule('.'.join(parts[:-1]))).__name__}".lower() and parts[-1] in (
        "out_proj",
        "conv1d",
        "x_proj",
        "dt_proj",
    )


def _expert_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of a mixture's expert weights, (experts, .., ..) in one tensor each, as `experts.down_proj`."""
    names: set[str] = set()
    for path, module in model.named_modules():
        if "expert" not in f"{path.rpartition('.')[2]} {type(module).__name__}".lower():
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == _EXPERT_DIMENSIONS:
                names.add(f"{path.rpartition('.')[2]}.{name}")
    return tuple(sorted(names))


def _plain(value: object) -> object:
    """Turn PEFT's enums and sets into JSON values."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return getattr(value, "value", str(value))


def as_tensor(array: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """Return a copy of a numpy array on the device and in the dtype of another tensor."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device, like.dtype, copy=True)
