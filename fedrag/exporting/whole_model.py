"""A generator as a whole model, its adapter merged into the base: for programs that know no PEFT."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from torch import nn

from fedrag.errors import ConfigError
from fedrag.exporting.trained_system import TrainedSystem
from fedrag.models.adapters import remove_lora
from fedrag.models.generator import Generator, load_config


def check_mergeable(system: TrainedSystem, option: str) -> None:
    """Refuse to merge where there is nothing to merge, or where a merged model would compute something else.

    Args:
        system: What is exported.
        option: The option that asks for a whole model, for the error.

    Raises:
        ConfigError: The generator was not trained, or its adapter acts from the question on.
    """
    if "generator" not in system.state:
        raise ConfigError(
            f"{option}: {system.name} trained no generator, and its retriever is a whole model anyway; leave it out"
        )
    if system.config.generator.adapter_from == "question":
        raise ConfigError(
            f'{option}: the adapter of {system.name} acts from the question on (generator.adapter_from = "question"), '
            "so no merged model computes the same; leave it out and load the adapter with PEFT, or train with "
            'adapter_from = "start"'
        )


def write_merged_generator(system: TrainedSystem, folder: Path) -> None:
    """Write base model and adapter as one model, in the number format in which the base is stored, and its tokenizer.

    The sum is computed in float32. Of a base that trained in 4 bits, the weights as they were fetched are taken.

    Raises:
        StorageError: The disk is full.
    """
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # they would break up our own
    config, base = system.config, system.base("generator")
    generator = Generator.load(
        base,
        config.generator.lora,
        torch.float32,
        "cpu",
        own_settings=config.generator.generation_settings == "model",
    )
    generator.set_adapter(system.state["generator"])
    remove_lora(generator.model, merge=True)
    stored = load_config(base).dtype
    nn.Module.to(generator.model, stored if isinstance(stored, torch.dtype) else torch.float32)
    generator.model.save_pretrained(folder)
    generator.tokenizer.save_pretrained(folder)
