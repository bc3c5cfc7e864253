"""RALT against TRL's SFTTrainer: tokens a second and peak memory of training the generator's adapter.

Both train the same model (SmolLM2-135M-Instruct) with LoRA of rank 16 on all linear layers, in bfloat16 where the
processor computes in it, on the same token ids in the same batches, with the loss on the answer alone: an epoch over a
shipped site, on a GPU two epochs over three. The peer runs as a user would configure it: `SFTTrainer` with
`completion_only_loss`, and `bf16` where the model is bfloat16. Each run is a process of its own, so that its peak
memory is its own; the model is loaded and one batch is trained before the clock starts, on a GPU all of them, since
passes are recorded there. Tokens are those of the examples, without padding: what several begin with counts with each,
though we read it once. The share of the ceilings counts the operations that are done, as `models.lora_training_flops`
states. `ralt.py --only ours --checkpointing` shows what activation checkpointing takes and saves, `ralt.py --only ours
--shuffled` what is trained where questions on the same passage meet by chance alone.

With `generator.adapter_from = "question"` the base model reads the passages alone and remembers them: other, cheaper
training on the same texts. It has rows of its own, for the first pass over the data and for a later one.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from typing import Any

import torch
from bench import Row, finish, in_a_process, main, peak_mb
from machine import SQUARE, linear_shapes, product_rate
from models import config, load_generator, lora_training_flops, passes_of, sites, training_examples

from fedrag.models.generator import Generator
from fedrag.passes.reading import reader_of
from fedrag.training.ralt import example_batches, train_generator
from fedrag.types import Example

BATCH = 8
ON_A_GPU = torch.cuda.is_available()
SITES, EPOCHS, TURNS = (3, 2, 2) if ON_A_GPU else (1, 1, 3)


def examples_of(generator: Generator) -> tuple[list[Example], list[Example]]:
    """Return what is trained before the clock starts, and what is timed: whole batches."""
    timed = training_examples(generator, sites()[:SITES], passages=2)
    timed = timed[: len(timed) // BATCH * BATCH]
    return timed if ON_A_GPU else training_examples(generator, sites()[-1:], passages=2)[:BATCH], timed


def ours() -> dict[str, Any]:
    """Train the warm-up and then what is timed with fedrag."""
    generator = load_generator()
    more = ["generator.activation_checkpointing=on"] * ("--checkpointing" in sys.argv)
    more += ["generator.group_by_passage=false"] * ("--shuffled" in sys.argv)
    settings = config(f"generator.batch_size={BATCH}", f"generator.epochs={EPOCHS}", *more).generator
    warm_up, timed = examples_of(generator)
    seconds = []
    for seed, examples in ((1, warm_up), (0, timed)):
        start = time.perf_counter()
        train_generator(generator, examples, settings, seed=seed)
        seconds.append(time.perf_counter() - start)
    peak = peak_mb()
    plan: list[list[Example]] = []
    for rows in example_batches(timed, settings, seed=0):
        plan += reader_of(generator).training_passes([timed[row] for row in rows], settings.micro_batch_tokens)
    trees = passes_of(generator, plan)
    square = product_rate([(SQUARE, SQUARE, SQUARE)], generator.dtype)
    forward = linear_shapes(generator.model, sum(sum(tree.lengths) for tree in trees) // len(plan))
    own = product_rate([*forward, *((m, n, k) for m, k, n in forward)], generator.dtype)
    return {
        "seconds": seconds[1],
        "warm_up_seconds": seconds[0],
        "tokens": EPOCHS * sum(example.length for example in timed),
        "flops": lora_training_flops(generator.model, trees),
        "square": square,
        "own": own,
        "peak_mb": peak,
    }


def from_the_question_on() -> dict[str, Any]:
    """Train the same with an adapter that acts from the question on, twice: read anew, and remembered."""
    generator = load_generator()
    generator.prefix_bytes = 4e9
    settings = config(f"generator.batch_size={BATCH}", "generator.adapter_from=question").generator
    warm_up, timed = examples_of(generator)
    train_generator(generator, warm_up, settings, seed=0)
    seconds = []
    for _ in ("first", "later"):
        start = time.perf_counter()
        train_generator(generator, timed, settings, seed=0)
        seconds.append(time.perf_counter() - start)
    tokens = sum(example.length for example in timed)
    return {"seconds": seconds[0], "later_seconds": seconds[1], "tokens": tokens, "peak_mb": peak_mb()}


def trl() -> dict[str, Any]:
    """Train the same batches with TRL, in the same order."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    generator = load_generator()
    settings = config(f"generator.batch_size={BATCH}", f"generator.epochs={EPOCHS}").generator
    warm_up, timed = examples_of(generator)
    timed_steps = EPOCHS * len(timed) // BATCH
    steps = [
        [examples[row] for row in rows]
        for seed, examples in ((1, warm_up), (0, timed))
        for rows in example_batches(examples, settings, seed=seed)
    ]
    rows = [
        {
            "input_ids": example.prompt + example.answer,
            "completion_mask": [0] * len(example.prompt) + [1] * len(example.answer),
        }
        for step in steps
        for example in step
    ]
    folder, tokenizer, dtype = generator.fetched.folder, generator.tokenizer, generator.dtype
    del generator
    started: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            finish()
            started.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as out:
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=dtype),
            args=SFTConfig(
                output_dir=out,
                per_device_train_batch_size=BATCH,
                max_steps=len(steps),
                bf16=dtype == torch.bfloat16,
                completion_only_loss=True,
                max_length=None,
                learning_rate=settings.learning_rate,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                use_cpu=not ON_A_GPU,
                gradient_checkpointing=False,
                train_sampling_strategy="sequential",
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=settings.lora.rank, lora_alpha=settings.lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[Clock()],
        )
        trainer.train()
    tokens = sum(example.length for step in steps[-timed_steps:] for example in step)
    return {"seconds": started[-1] - started[-1 - timed_steps], "tokens": tokens, "peak_mb": peak_mb()}


def measure() -> list[Row]:
    """Compare RALT with TRL's SFTTrainer."""
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "trl": []}
    if not ON_A_GPU:
        runs["question"] = []
    for _ in range(TURNS):
        for name, found in runs.items():
            found.append(in_a_process(__file__, name))
    rates = {name: statistics.median(run["tokens"] / run["seconds"] for run in found) for name, found in runs.items()}
    memory = {name: max(run["peak_mb"] for run in found) for name, found in runs.items()}
    speed = statistics.median(run["flops"] / run["seconds"] for run in runs["ours"])
    square = statistics.median(run["square"] for run in runs["ours"])
    own = statistics.median(run["own"] for run in runs["ours"])
    figures = {f"{name}_tokens_a_second": rate for name, rate in rates.items()}
    figures |= {"gflops": speed / 1e9, "square_gflops": square / 1e9, "own_shapes_gflops": own / 1e9}
    rows = [
        Row("RALT, tokens a second: against TRL's SFTTrainer", rates["ours"] / rates["trl"], "x", 4, figures=figures),
        Row(
            "RALT, peak memory: share of SFTTrainer's",
            100 * memory["ours"] / memory["trl"],
            "%",
            100,
            most=True,
            figures={f"{name}_peak_mb": megabytes for name, megabytes in memory.items()},
        ),
        Row("RALT: share of the machine's peak", 100 * speed / square, "%"),
        Row("RALT: share of the ceiling of its own shapes", 100 * speed / own, "%"),
    ]
    if "question" in runs:
        later = statistics.median(run["tokens"] / run["later_seconds"] for run in runs["question"])
        rows += [
            Row("RALT from the question on, first pass: against SFTTrainer", rates["question"] / rates["trl"], "x"),
            Row("RALT from the question on, later passes: against SFTTrainer", later / rates["trl"], "x"),
        ]
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["--only"]:
        result = {"ours": ours, "question": from_the_question_on, "trl": trl}[sys.argv[2]]()
        print(json.dumps(result))
    else:
        main(measure)
