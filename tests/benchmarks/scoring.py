"""Answer scores (LSR): our scoring against the loop that peers run, one question and passage at a time in float32.

Both let the untouched generator score the same pairs: the training questions of a shipped site (on a GPU of all), each
with the eight passages that the untouched retriever finds. The peers' loop runs the whole model with its head over
every position of one pair; it is timed on every PEERS_SHARE-th pair, since it is slow, and compared by pairs a second.
Ours is `score_answers` over all pairs, in the number format that the processor is quick in. Both give the same scores:
tests/rag/test_answer_scores.py.

The share of the ceilings counts the operations that `models.scoring_flops` states: those that are done.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from bench import Row, in_turn, main
from machine import SQUARE, Shape, linear_shapes, product_rate
from models import config, load_generator, load_retriever, scoring_flops, sites

from fedrag.models.generator import Generator
from fedrag.passes.reading import reader_of
from fedrag.passes.tree import PromptTree
from fedrag.rag.answer_scores import ScoreCache, score_answers
from fedrag.rag.indexing import build_index
from fedrag.rag.pipeline import rank
from fedrag.training.retriever_examples import choose_candidates, lsr_pairs
from fedrag.types import Example

TURNS = 3
SITES, PEERS_SHARE = (None, 60) if torch.cuda.is_available() else (1, 12)  # None: all


def site_pairs(generator: Generator) -> list[Example]:
    """Return the pairs of the first shipped site, or of all."""
    settings = config("rag.passages=1")
    retriever = load_retriever()
    pairs: list[Example] = []
    for site in sites()[:SITES]:
        index = build_index(retriever, site.passages, settings.rag.chunk_overlap)
        rankings = rank(retriever, index, site.train, settings.retriever.lsr.candidates)
        chosen = [choose_candidates(ranking, settings.retriever.lsr) for ranking in rankings]
        pairs += lsr_pairs(generator, site.train, chosen, {p.id: p for p in site.passages}, index, settings.rag)
    return pairs


def one_at_a_time(generator: Generator, pairs: Sequence[Example]) -> list[float]:
    """Score as peers do: a pair a pass, the head over all positions."""
    scores = []
    for pair in pairs:
        ids = torch.tensor([pair.prompt + pair.answer], device=generator.model.device)
        with torch.no_grad():
            logits = generator.model(input_ids=ids).logits[0, len(pair.prompt) - 1 : -1]
        chosen = torch.log_softmax(logits, dim=-1)[range(len(pair.answer)), pair.answer]
        scores.append(chosen.mean().item())
    return scores


def flops(generator: Generator, pairs: Sequence[Example]) -> tuple[float, list[Shape]]:
    """Return the operations of scoring all pairs, and the products of the linear layers one batch after the other."""
    plan = reader_of(generator).scoring_batches(pairs, 0)
    trees = [PromptTree.of([pairs[row] for row in rows]) for rows in plan]
    shapes = [shape for tree in trees for shape in linear_shapes(generator.model, sum(tree.lengths))]
    return scoring_flops(generator.model, trees), shapes


def measure() -> list[Row]:
    """Compare answer scoring with the peers' loop."""
    fast, plain = load_generator(), load_generator("float32")
    pairs = site_pairs(fast)
    few = pairs[::PEERS_SHARE]
    score_answers(fast, few)
    one_at_a_time(plain, few[:2])
    with torch.inference_mode(), plain.untouched():
        taken = in_turn(
            TURNS,
            ours=lambda: score_answers(fast, pairs),
            peers=lambda: one_at_a_time(plain, few),
        )
    rates = {"ours": len(pairs) / taken["ours"], "peers": len(few) / taken["peers"]}
    work, shapes = flops(fast, pairs)
    speed = work / taken["ours"]
    square = product_rate([(SQUARE, SQUARE, SQUARE)], fast.dtype)
    own = product_rate(shapes[:: max(1, len(shapes) // 400)], fast.dtype)
    again = _from_cache(fast, pairs)
    dtype = str(fast.dtype).removeprefix("torch.")
    figures = {f"{name}_pairs_a_second": rate for name, rate in rates.items()} | {"pairs": len(pairs)}
    ceilings = {"gflops": speed / 1e9, "square_gflops": square / 1e9, "own_shapes_gflops": own / 1e9}
    faster = rates["ours"] / rates["peers"]
    return [
        Row(f"answer scores in {dtype}: against one pair at a time", faster, "x", 10, figures=figures),
        Row(f"answer scores: share of the machine's {dtype} peak", 100 * speed / square, "%", figures=ceilings),
        Row("answer scores: share of the ceiling of its own shapes", 100 * speed / own, "%"),
        Row(
            "answer scores: the nearer of 60 % of the peak and 85 % of its own",
            max(speed / square / 0.6, speed / own / 0.85),
            "x",
            1,
        ),
        Row("answer scores: a second epoch, from the cache", taken["ours"] / again, "x", 50),
    ]


def _from_cache(generator: Generator, pairs: Sequence[Example]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        cache = ScoreCache(Path(folder), "benchmark")
        score_answers(generator, pairs, cache=cache)
        start = time.perf_counter()
        score_answers(generator, pairs, cache=cache)
        return time.perf_counter() - start


if __name__ == "__main__":
    main(measure)
