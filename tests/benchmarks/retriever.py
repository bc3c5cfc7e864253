"""Contrastive training of the retriever against sentence-transformers' trainer, and indexing in one batched pass.

Both train the same model (all-MiniLM-L6-v2) on the same batches: one labelled question of each passage of the shipped
sites, every text cut to 128 tokens, in-batch negatives (`MultipleNegativesRankingLoss` at the peer). Once all weights
train, in float32; once a LoRA adapter does, in the format that the processor computes in: in bfloat16 the peer runs
with `bf16=True` (autocast), in float32 without. The peer trains with the encoder's dropout, as its users do, and
once more without it, as we do: the ratio is taken to the latter, which does the same work.

Each run is a process of its own. The clock starts when the first step is done and stops with the last. Indexing
chunks, encodes and indexes the passages of all shipped sites; one by one means `encode` on one text after the other.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from bench import Row, finish, in_a_process, in_turn, main, peak_mb
from models import config, load_retriever, sites

from fedrag.models.retriever import Retriever
from fedrag.rag.indexing import build_index
from fedrag.training.retriever_batches import distinct_batches
from fedrag.training.retriever_examples import RetrieverExample, labelled_examples
from fedrag.training.retriever_training import train_retriever
from fedrag.weights.compute import best_device, computing_dtype
from fedrag.weights.store import find_model

BATCH, EPOCHS, TURNS, TOKENS = 32, 2, 3, 128
CONTENDERS = ("ours", "peer", "peer_with_dropout")


def training_examples(retriever: Retriever) -> list[RetrieverExample]:
    """Return an example of each labelled passage, whole batches of them, in the order in which they are trained."""
    by_passage: dict[tuple[str, str], RetrieverExample] = {}
    for site in sites():
        for example in labelled_examples(retriever, site.train, site.passages, 32, TOKENS):
            assert example.positive
            by_passage.setdefault((site.name, example.positive.passage_id), example)
    examples = list(by_passage.values())
    examples = examples[: len(examples) // BATCH * BATCH]
    return [examples[row] for rows in distinct_batches(examples, BATCH, 1, seed=0) for row in rows]


def dtype_of(weights: str) -> torch.dtype:
    """Return the number format in which these weights train."""
    return torch.float32 if weights == "full" else computing_dtype("auto", best_device())


def ours(weights: str) -> dict[str, Any]:
    """Train with fedrag."""
    settings = config(f"retriever.weights={weights}", f"retriever.batch_size={BATCH}", f"retriever.epochs={EPOCHS}")
    retriever = Retriever.load(
        find_model(settings.models.retriever), settings.retriever, best_device(), dtype_of(weights)
    )
    examples = training_examples(retriever)
    clock: list[float] = []
    train_retriever(
        retriever, examples, settings.retriever, seed=0, on_step=lambda *_: clock.append(time.perf_counter())
    )
    return _rate(clock)


def peer(weights: str, dropout: bool = False) -> dict[str, Any]:
    """Train with sentence-transformers."""
    from datasets import Dataset
    from peft import LoraConfig, inject_adapter_in_model
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    examples = training_examples(load_retriever())
    settings = config()
    folder, learning = find_model(settings.models.retriever).folder, settings.retriever
    model = SentenceTransformer(str(folder), device=best_device(), local_files_only=True)
    model.max_seq_length = TOKENS
    if weights == "lora":
        adapter = LoraConfig(
            r=learning.lora.rank,
            lora_alpha=learning.lora.alpha,
            lora_dropout=0.0,
            target_modules=["query", "key", "value", "dense"],
            exclude_modules=["pooler.dense"],
            task_type="FEATURE_EXTRACTION",
        )
        inject_adapter_in_model(adapter, model)  # its own `add_adapter` refuses the newest PEFT there is
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and not dropout:
            module.p = 0.0
    clock: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            finish()
            clock.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as out:
        SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=out,
                per_device_train_batch_size=BATCH,
                num_train_epochs=EPOCHS,
                bf16=dtype_of(weights) == torch.bfloat16,
                learning_rate=learning.learning_rate,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                use_cpu=not torch.cuda.is_available(),
                train_sampling_strategy="sequential",
            ),
            train_dataset=Dataset.from_dict(
                {
                    "anchor": [example.question for example in examples],
                    "positive": [example.positive.text for example in examples if example.positive],
                }
            ),
            loss=MultipleNegativesRankingLoss(model, scale=20.0),
            callbacks=[Clock()],
        ).train()
    return _rate(clock)


def _rate(clock: list[float]) -> dict[str, Any]:
    steps = len(clock) - 1
    return {"examples_a_second": BATCH * steps / (clock[-1] - clock[0]), "steps": steps}


def training(weights: str) -> Row:
    """Compare the examples a second of training these weights."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for _ in range(TURNS):
        for name, found in runs.items():
            found.append(in_a_process(__file__, name, weights))
    rates = {name: statistics.median(run["examples_a_second"] for run in found) for name, found in runs.items()}
    figures: dict[str, Any] = {f"{name}_examples_a_second": rate for name, rate in rates.items()}
    figures |= {f"{name}_peak_mb": max(run["peak_mb"] for run in found) for name, found in runs.items()}
    kind = {"full": "all weights", "lora": "LoRA"}[weights]
    precision = str(dtype_of(weights)).removeprefix("torch.")
    what = f"retriever, {kind}, {precision}, examples a second: against sentence-transformers' trainer"
    return Row(what, rates["ours"] / rates["peer"], "x", 1, figures=figures)


def indexing() -> Row:
    """Compare building an index with encoding one passage after the other."""
    retriever = load_retriever()
    passages = [passage for site in sites() for passage in site.passages]
    texts = [passage.full_text for passage in passages]

    def batched() -> None:
        build_index(retriever, passages, config().rag.chunk_overlap)

    def one_by_one() -> None:
        for text in texts:
            retriever.encoder.encode_document(text, show_progress_bar=False)

    retriever.encode_passages(texts[:8])
    seconds = in_turn(TURNS, batched=batched, one_by_one=one_by_one)
    figures = {f"{name}_passages_a_second": len(texts) / taken for name, taken in seconds.items()}
    return Row(
        "indexing: against encoding one by one", seconds["one_by_one"] / seconds["batched"], "x", figures=figures
    )


def measure() -> list[Row]:
    """Compare the retriever's training with sentence-transformers' trainer, and indexing with a plain loop."""
    return [training("full"), training("lora"), indexing()]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--only"]:
        contenders: dict[str, Callable[[str], dict[str, Any]]] = {
            "ours": ours,
            "peer": peer,
            "peer_with_dropout": lambda weights: peer(weights, dropout=True),
        }
        print(json.dumps(contenders[sys.argv[2]](sys.argv[3]) | {"peak_mb": peak_mb()}))
    else:
        main(measure)
