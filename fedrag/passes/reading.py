"""Reads batches with a generator, along the paths that `fedrag.passes.choose` chose."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property

import torch

from fedrag.models.generator import Generator
from fedrag.passes.batches import plan_batches, plan_prefix_batches
from fedrag.passes.choose import ReadingPath, ReadingPaths, paths_of, reading_text, traits_of, with_dropout
from fedrag.passes.cuda_graph import GraphCapture
from fedrag.passes.cuda_graph_training import CapturedPasses
from fedrag.passes.memory_estimate import tokens_at_a_time
from fedrag.passes.plain import causal_logits, seq2seq_logits
from fedrag.passes.prefix import PrefixReader, read_first_prefixes, share_a_prefix
from fedrag.passes.tree import plan_tree_passes, tree_logits, use_tree_attention
from fedrag.types import Example

log = logging.getLogger("fedrag.passes")

TRAINING_TOKENS = 2048
SCORING_TOKENS = 8192


class Reader:
    """Reads batches with one generator.

    Args:
        generator: The generator; it computes with its current adapter.

    Attributes:
        traits: What decides its paths.
        prefixes: Remembers what comes before the questions; None unless the adapter acts from the question on.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._model = generator.model
        self.traits = traits_of(generator)
        self.prefixes: PrefixReader | None = None
        if generator.prefix_bytes is not None:
            self.prefixes = PrefixReader(self._model, generator.prefix_bytes)
        if not self.traits.other_attention:
            use_tree_attention(self._model)
        self._logged: ReadingPaths | None = None

    @property
    def paths(self) -> ReadingPaths:
        """How it reads batches with torch's current number of threads; logged when that changes."""
        paths = paths_of(with_dropout(self.traits, self._generator.dropout))
        if paths != self._logged:
            self._logged = paths
            log.info("%s", reading_text(paths.facts()))
        return paths

    @cached_property
    def graph_capture(self) -> GraphCapture:
        """Captures its passes as CUDA graphs."""
        return GraphCapture(self._model.device)

    @cached_property
    def captured_passes(self) -> CapturedPasses:
        """Its training passes as CUDA graphs."""
        return CapturedPasses(self._model, self._generator.pad_id, self.graph_capture)

    def training_passes(self, batch: Sequence[Example], tokens: int) -> list[list[Example]]:
        """Return the parts of a batch that are each read in one forward pass.

        Args:
            batch: Examples of one optimizer step.
            tokens: Tokens of all passes that run at a time; 0: what suits the device.
        """
        path = self.paths.training
        most = tokens_at_a_time(self._generator, tokens, TRAINING_TOKENS) // path.threads
        if path.name == "tree":
            return [[batch[i] for i in rows] for rows in plan_tree_passes(batch, path.threads, most)]
        # At least two passes of similar length for each thread: with fewer, one thread would wait for the other.
        lengths = [self._pass_tokens(example) for example in batch]
        if path.threads > 1:
            most = min(most, sum(lengths) // (2 * path.threads))
        return [[batch[i] for i in rows] for rows in plan_batches(lengths, most)]

    def scoring_batches(self, examples: Sequence[Example], tokens: int) -> list[list[int]]:
        """Return the rows of the batches in which examples are scored, each in one forward pass.

        Args:
            examples: Prompts and answers.
            tokens: Padded tokens of all passes that run at a time; 0: what suits the device.
        """
        path = self.paths.scoring
        most = tokens_at_a_time(self._generator, tokens, SCORING_TOKENS) // path.threads
        if path.name in ("tree", "shared"):
            return plan_prefix_batches(examples, most)
        # A remembered prefix takes memory for each example of a batch, even where all have the same one.
        return plan_batches([self._pass_tokens(example) for example in examples], most)

    def _pass_tokens(self, example: Example) -> int:
        """Return the tokens for which an example counts in a pass; remembered ones cost half as much."""
        return example.length - (example.shared // 2 if self.prefixes else 0)

    def answer_logits(
        self, batch: Sequence[Example], path: ReadingPath | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run one forward pass and return the logits at the answer positions.

        Args:
            batch: Examples, of similar length where the path pads them.
            path: How to read them; None: as in training.

        Returns:
            Logits (tokens, vocabulary) and the answer ids (tokens,), example after example.
        """
        name = (path or self.paths.training).name
        labels = torch.tensor([token for example in batch for token in example.answer], device=self._model.device)
        pad_id = self._generator.pad_id
        if self.traits.seq2seq:
            return seq2seq_logits(self._model, pad_id, self._generator.start_id, batch), labels
        if name == "tree":
            return tree_logits(self._model, batch), labels
        cache, mask, starts = None, None, [0] * len(batch)
        if self.prefixes is not None:
            cache, mask = self.prefixes.read(batch)
            starts = [example.shared for example in batch]
        elif name == "shared" and share_a_prefix(batch):
            cache, mask = read_first_prefixes(self._model, batch)
            starts = [len(example.first_prefix) for example in batch]
        rest = [Example(e.prompt[start:], e.answer) for e, start in zip(batch, starts, strict=True)]
        return causal_logits(self._model, pad_id, rest, cache, mask), labels


def reader_of(generator: Generator) -> Reader:
    """Return the reader of a generator; the first call makes it."""
    if not isinstance(generator.reader, Reader):
        generator.reader = Reader(generator)
    return generator.reader


def answer_logits(generator: Generator, batch: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits (tokens, vocabulary) at the answer positions of a batch and the answer ids (tokens,)."""
    return reader_of(generator).answer_logits(batch)
