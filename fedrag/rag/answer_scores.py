"""Answer scores: how likely each passage makes the right answer to the generator.

    s_j = (1/T) sum_t log p_LM(y_t | prompt(c_j, q), y_<t)

The mean log-probability, not the product of probabilities, which underflows to 0 for a long answer and makes the target
uniform. Scores are the whole cost of LSR, so they are cached on the site's disk, in the batches in which they were
computed: in bfloat16 the same pair scores differently in another batch.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fedrag.models.generator import Generator
from fedrag.passes.reading import reader_of
from fedrag.passes.threads import thread_pool
from fedrag.types import Array, Example

_VERSION = 5


def score_answers(
    generator: Generator,
    examples: Sequence[Example],
    batch_tokens: int = 0,
    cache: ScoreCache | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Array:
    """Return the mean log-probability of each example's answer (examples,).

    Args:
        generator: Scores in eval mode, without gradient, with its current adapter.
        examples: Prompts and answers; without end tokens, which say nothing about the passage.
        batch_tokens: Padded tokens of all passes that run at a time; 0: what suits the device.
        cache: Scores of earlier calls.
        on_batch: Called after each batch with (examples done, examples in all).
    """
    reader = reader_of(generator)
    scores = np.zeros(len(examples), np.float32)
    done = 0

    def take(rows: Sequence[int], found: Array) -> None:
        nonlocal done
        scores[rows] = found
        done += len(rows)
        if on_batch:
            on_batch(done, len(examples))

    def score(rows: Sequence[int]) -> Array:
        batch = [examples[row] for row in rows]
        found = mean_log_probabilities(generator, batch)
        if cache:
            cache.write(batch, found)
        return found

    missing = []
    for rows in reader.scoring_batches(examples, batch_tokens):
        known = cache.read([examples[row] for row in rows]) if cache else None
        if known is None:
            missing.append(rows)
        else:
            take(rows, known)
    if missing:
        with generator.at_rest(), thread_pool(reader.paths.scoring.threads) as run:
            for rows, found in zip(missing, run(partial(score, rows) for rows in missing), strict=True):
                take(rows, found)
    return scores


def mean_log_probabilities(generator: Generator, batch: Sequence[Example]) -> Array:
    """Return the mean log-probability of each answer of one batch (examples,), computed in float32.

    Args:
        generator: A causal or seq2seq model.
        batch: Examples, of similar length or with the same passages.
    """
    with torch.inference_mode():
        reader = reader_of(generator)
        logits, labels = reader.answer_logits(batch, reader.paths.scoring)
        logits = logits.float()
        chosen = logits.gather(1, labels[:, None])[:, 0] - logits.logsumexp(dim=-1)
    lengths = [len(example.answer) for example in batch]
    return np.array([part.mean().item() for part in torch.split(chosen, lengths)], np.float32)


class ScoreCache:
    """Scores on disk: a folder for each generator, and in it a file for each batch, written as a whole.

    Args:
        folder: The site's cache folder.
        generator_key: All that scores depend on: the generator's weights, adapter and number format, and the machine's
            threads.
    """

    def __init__(self, folder: Path, generator_key: str) -> None:
        self.folder = folder / hashlib.sha256(f"{_VERSION}:{generator_key}".encode()).hexdigest()[:24]
        self.folder.mkdir(parents=True, exist_ok=True)
        os.utime(self.folder)  # marks it as in use

    def read(self, batch: Sequence[Example]) -> Array | None:
        """Return the scores of a batch; None if there are none."""
        try:
            with self._path(batch).open("rb") as file:
                scores: Array = np.load(file)
        except (FileNotFoundError, ValueError, EOFError, zipfile.BadZipFile):
            return None  # never scored, or damaged: scored again
        return scores if scores.shape == (len(batch),) else None

    def write(self, batch: Sequence[Example], scores: Array) -> None:
        """Store the scores of a batch."""
        path = self._path(batch)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        with partial.open("wb") as file:
            np.save(file, scores)
        partial.replace(path)

    def prune(self, unused_days: float = 7.0) -> None:
        """Remove the scores of generators that were not used for some days.

        A generator that trains is a new one in each round; one that does not may serve many runs.
        """
        limit = time.time() - unused_days * 86_400
        for folder in self.folder.parent.iterdir():
            if folder.is_dir() and folder != self.folder and _changed(folder) < limit:
                shutil.rmtree(folder, ignore_errors=True)

    def _path(self, batch: Sequence[Example]) -> Path:
        digest = hashlib.sha256()
        for example in batch:
            digest.update(np.array([len(example.prompt), *example.prompt, -1, *example.answer], np.int64).tobytes())
        return self.folder / f"{digest.hexdigest()[:32]}.npy"


def _changed(folder: Path) -> float:
    """Return when a folder last changed, in seconds since the epoch; infinity if another process removed it."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return math.inf
