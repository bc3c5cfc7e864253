"""The real models and the data that ships, as every benchmark uses them, and the operations that a pass takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from torch import nn

from fedrag.config.scenario import Config
from fedrag.data.site_folder import load_sites
from fedrag.models.generator import Generator
from fedrag.models.retriever import Retriever
from fedrag.passes.reading import reader_of
from fedrag.passes.tree import PromptTree
from fedrag.rag.indexing import build_index
from fedrag.rag.pipeline import retrieve
from fedrag.rag.window import shown_hits
from fedrag.training.ralt import answer_examples
from fedrag.types import Example, Site
from fedrag.weights.compute import best_device, computing_dtype
from fedrag.weights.store import find_model

transformers.utils.logging.disable_progress_bar()

SPACE = Path(__file__).parents[2] / "simulations" / "data" / "space"


def config(*overrides: str) -> Config:
    """Return a scenario with the shipped sites and default settings, changed by `section.key=value` strings."""
    return Config.from_toml(f'name = "bench"\n[data]\nsites = "{SPACE}"\n', overrides=overrides)


def sites() -> list[Site]:
    """Return the shipped sites."""
    return load_sites(SPACE)


def load_generator(dtype: str = "auto") -> Generator:
    """Return the default generator with its adapter."""
    settings = config()
    device = best_device()
    fetched = find_model(settings.models.generator)
    return Generator.load(fetched, settings.generator.lora, computing_dtype(dtype, device), device)


def load_retriever() -> Retriever:
    """Return the default retriever with its adapter."""
    settings = config()
    device = best_device()
    dtype = computing_dtype(settings.models.retriever_dtype, device)
    return Retriever.load(find_model(settings.models.retriever), settings.retriever, device, dtype)


def training_examples(generator: Generator, of: Sequence[Site], passages: int) -> list[Example]:
    """Return tokenised training examples of some sites, with the passages that the untouched retriever finds."""
    settings = config(f"rag.passages={passages}")
    retriever = load_retriever()
    examples: list[Example] = []
    for site in of:
        index = build_index(retriever, site.passages, settings.rag.chunk_overlap)
        hits = retrieve(retriever, index, [question.question for question in site.train], passages)
        by_id = {passage.id: passage for passage in site.passages}
        shown = [shown_hits(found, by_id, index) for found in hits]
        examples += answer_examples(generator, site.train, shown, settings.rag)
    return examples


def passes_of(generator: Generator, plan: Sequence[Sequence[Example]]) -> list[PromptTree]:
    """Return the trees that the passes of a plan read; without trees, one for each example."""
    if reader_of(generator).paths.training.name == "tree":
        return [PromptTree.of(batch) for batch in plan]
    return [PromptTree.of([example]) for batch in plan for example in batch]


def scoring_flops(model: nn.Module, trees: Sequence[PromptTree]) -> float:
    """Return the operations of forward passes of the base model alone.

    A product of (m, k) and (k, n) is 2 m k n: 2 N P for N tokens and P weights in linear layers; for the head N counts
    the answer positions alone. Attention costs 4 H D a layer (H heads of D, the scores and their product with the
    values) for each token and each one that it attends to. Norms, softmax and activations are not counted.

    Args:
        model: With its adapter.
        trees: What the passes read.
    """
    return 2 * _frozen(model, trees) + 4 * attention_width(model) * _attended(trees)


def lora_training_flops(model: nn.Module, trees: Sequence[PromptTree]) -> float:
    """Return the operations of forward and backward passes that train an adapter alone.

    As `scoring_flops`, and the gradients: a frozen weight costs its forward product and the gradient of its input, an
    adapter's weight one more, the gradient of itself. The backward pass of attention takes twice the forward one.

    Args:
        model: With its adapter.
        trees: What the passes read.
    """
    adapter = sum(sum(tree.lengths) for tree in trees) * linear_weights(model, "lora_")
    return 4 * _frozen(model, trees) + 6 * adapter + 12 * attention_width(model) * _attended(trees)


def _frozen(model: nn.Module, trees: Sequence[PromptTree]) -> float:
    """Return each frozen weight times the tokens that it multiplies, summed."""
    tokens = sum(sum(tree.lengths) for tree in trees)
    answer_tokens = sum(len(tree.places) for tree in trees)
    return tokens * linear_weights(model, "base_layer") + answer_tokens * head_weights(model)


def _attended(trees: Sequence[PromptTree]) -> int:
    """Return how many tokens the tokens attend to, summed."""
    return sum(position + 1 for tree in trees for position in tree.positions)


def linear_weights(model: nn.Module, part: str = "") -> int:
    """Return the number of weights in the linear layers but the head whose name contains a part."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    layers = ((name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear))
    return sum(layer.weight.numel() for name, layer in layers if layer is not head and part in name)


def head_weights(model: nn.Module) -> int:
    """Return the number of weights of the output head."""
    weight: torch.Tensor = model.get_output_embeddings().weight  # type: ignore[operator,union-attr]
    return weight.numel()


def attention_width(model: nn.Module) -> int:
    """Return heads times their dimension, summed over the layers."""
    shape = model.config
    head_dim = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    return int(shape.num_attention_heads * head_dim * shape.num_hidden_layers)
