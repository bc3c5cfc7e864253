"""Generators of 0.5 to 8 billion weights: tokens a second, peak memory and share of the device's peak.

Random weights of the shapes of Qwen2.5-0.5B, Llama-3.2-1B and Qwen2.5-7B (`sizes.py`), written once into
build/at-size. Each measurement is a process of its own, so that its peak memory is its own:

- RALT: the adapter is trained (LoRA of rank 16 on all linear layers), against TRL's `SFTTrainer` with
  `completion_only_loss` on the same token ids in the same batches. Neither recomputes activations.
- LSR: answers are scored without gradient, against transformers' own passes over padded batches of as many texts, with
  the head at the answers alone. TRL scores nothing.
- both with base weights in 4 bits (nf4), where bitsandbytes is installed.

The share of the peak is operations over the rate of a product of large squares, in the number format of the computation
and measured in the same process. Operations are those that are done, padding not counted, as `models.py` states them.

    python tests/benchmarks/at_size.py --device cpu --sizes Qwen2.5-0.5B
    python tests/benchmarks/at_size.py --device cuda                        # all three sizes

What has no time left under --minutes is left out, and said. With --busy the processor's seconds of one thread count,
not those of the clock: for a machine that does other work meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bench import Row, finish, main, peak_mb
from machine import SQUARE, product_rate
from models import config, lora_training_flops, passes_of, scoring_flops
from sizes import SIZES, empty_model, random_examples, write_random_model, written

from fedrag.models.adapters import add_lora
from fedrag.models.generator import Generator
from fedrag.passes.reading import reader_of
from fedrag.passes.tree import PromptTree
from fedrag.rag.answer_scores import score_answers
from fedrag.training.ralt import example_batches, train_generator
from fedrag.types import Example
from fedrag.weights.compute import best_device, computing_dtype

FILES = Path("build/at-size")
CONTENDERS = ("ralt", "trl", "lsr", "transformers")
FORMATS = ("auto", "nf4")
BUSY = "FEDRAG_BENCH_BUSY"  # tells the processes of the measurements which seconds count
GRACE_S = 60.0  # for loading and the last step of a measurement that is out of time


@dataclass(frozen=True)
class Load:
    """How much is measured on a device: examples in a step, steps before the clock starts, and timed ones."""

    batch: int
    warm_up: int
    steps: int


LOADS = {"cpu": Load(2, 1, 1), "cuda": Load(8, 16, 16)}  # a GPU's passes are recorded first, all of them


def now() -> float:
    """Return the seconds that count."""
    return time.process_time() if BUSY in os.environ else time.perf_counter()


class OutOfTime(Exception):
    """Ends a training in the middle."""


@dataclass(frozen=True)
class Measurement:
    """What one process measures."""

    size: str
    contender: str
    number_format: str
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.size} {self.contender} {self.number_format}"

    def run(self) -> dict[str, Any]:
        """Measure; return tokens, seconds, peak memory and share of the peak."""
        end = now() + self.seconds
        measure = {"ralt": ralt, "trl": trl, "lsr": lsr, "transformers": transformers_alone}[self.contender]
        done, moments, trees = measure(self, LOADS[best_device()], end)
        peak = peak_mb()
        dtype = computing_dtype(self.number_format, best_device())
        model = empty_model(self.size)
        with torch.device("meta"):
            add_lora(model, config().generator.lora)
        count = lora_training_flops if self.contender in ("ralt", "trl") else scoring_flops
        seconds = moments[-1] - moments[0]
        square = product_rate([(SQUARE, SQUARE, SQUARE)], dtype, clock=now)
        return {
            "tokens_a_second": sum(example.length for example in done) / seconds,
            "seconds": seconds,
            "examples": len(done),
            "peak_mb": peak,
            "peak_share_percent": 100 * count(model, trees) / seconds / square,
            "square_gflops": square / 1e9,
        }


Found = tuple[list[Example], list[float], list[PromptTree]]
"""The examples that were timed; the moments of the start and after each step; what the passes read."""


def load(of: Measurement) -> Generator:
    """Load a size as a site would."""
    device = best_device()
    dtype = computing_dtype(of.number_format, device)
    lora = config().generator.lora
    return Generator.load(written(of.size, FILES), lora, dtype, device, four_bits=of.number_format == "nf4")


def training(load: Load, size: str) -> tuple[list[Example], list[Example], Any]:
    """Return what is trained before the clock starts, what is timed, and the settings."""
    timed = random_examples(size, load.batch * load.steps, passages=2)
    settings = config(f"generator.batch_size={load.batch}", "generator.activation_checkpointing=off").generator
    return timed[: load.batch * load.warm_up], timed, settings


def ralt(of: Measurement, load_: Load, end: float) -> Found:
    """Train with fedrag."""
    generator = load(of)
    warm_up, timed, settings = training(load_, of.size)
    train_generator(generator, warm_up, settings, seed=0)
    finish()
    moments = [now()]

    def clock(done: int, total: int, loss: float) -> None:
        finish()
        moments.append(now())
        if moments[-1] > end:
            raise OutOfTime

    with contextlib.suppress(OutOfTime):
        train_generator(generator, timed, settings, seed=0, on_step=clock)
    steps = [[timed[row] for row in rows] for rows in example_batches(timed, settings, seed=0)][: len(moments) - 1]
    plan = [part for step in steps for part in reader_of(generator).training_passes(step, settings.micro_batch_tokens)]
    return [example for step in steps for example in step], moments, passes_of(generator, plan)


def trl(of: Measurement, load_: Load, end: float) -> Found:
    """Train with TRL, as its user would configure it."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    warm_up, timed, settings = training(load_, of.size)
    steps = [
        [examples[row] for row in rows]
        for examples in (warm_up, timed)
        for rows in example_batches(examples, settings, seed=0)
    ]
    rows = [
        {"input_ids": e.prompt + e.answer, "completion_mask": [0] * len(e.prompt) + [1] * len(e.answer)}
        for step in steps
        for e in step
    ]
    moments: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            finish()
            moments.append(now())
            control.should_training_stop = control.should_training_stop or moments[-1] > end

    folder = written(of.size, FILES).folder
    model = peers_model(of)
    with tempfile.TemporaryDirectory() as out:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=out,
                per_device_train_batch_size=load_.batch,
                max_steps=len(steps),
                bf16=model.dtype == torch.bfloat16,
                completion_only_loss=True,
                max_length=None,
                learning_rate=settings.learning_rate,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                use_cpu=best_device() == "cpu",
                gradient_checkpointing=False,
                train_sampling_strategy="sequential",
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(folder),
            peft_config=LoraConfig(
                r=settings.lora.rank, lora_alpha=settings.lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[Clock()],
        )
        trainer.train()
    moments = moments[load_.warm_up - 1 :]
    done = [example for step in steps[load_.warm_up :][: len(moments) - 1] for example in step]
    return done, moments, [PromptTree.of([example]) for example in done]


def peers_model(of: Measurement) -> Any:
    """Load a size as a user of transformers would."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = computing_dtype(of.number_format, best_device())
    more: dict[str, Any] = {"device_map": {"": best_device()}}
    if of.number_format == "nf4":
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return AutoModelForCausalLM.from_pretrained(written(of.size, FILES).folder, dtype=dtype, **more)


def pairs(load_: Load, size: str) -> tuple[list[list[Example]], list[list[Example]]]:
    """Return batches of pairs of a question and a passage: those before the clock starts, and those that are timed."""
    found = random_examples(size, 2 * load_.batch * load_.steps, passages=1)
    timed = [found[i : i + 2 * load_.batch] for i in range(0, len(found), 2 * load_.batch)]
    return timed[: load_.warm_up], timed


def lsr(of: Measurement, load_: Load, end: float) -> Found:
    """Score answers with fedrag."""
    generator = load(of)
    warm_up, timed = pairs(load_, of.size)

    def score(batch: list[Example]) -> None:
        score_answers(generator, batch)

    done, moments = scored(score, warm_up, timed, end)
    plan = [[batch[row] for row in rows] for batch in done for rows in reader_of(generator).scoring_batches(batch, 0)]
    tree = reader_of(generator).paths.scoring.name == "tree"
    trees = [PromptTree.of(part) for part in (plan if tree else [[example] for part in plan for example in part])]
    return [example for batch in done for example in batch], moments, trees


def transformers_alone(of: Measurement, load_: Load, end: float) -> Found:
    """Score answers with transformers, in padded batches."""
    model = peers_model(of)
    warm_up, timed = pairs(load_, of.size)

    def score(batch: list[Example]) -> None:
        ids = torch.tensor([example.prompt + example.answer for example in batch], device=model.device)  # of one length
        answers = torch.tensor([example.answer for example in batch], device=model.device)
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=answers.shape[1] + 1).logits[:, :-1].float()
            torch.log_softmax(logits, dim=-1).gather(2, answers[..., None]).mean(dim=1).tolist()

    done, moments = scored(score, warm_up, timed, end)
    examples = [example for batch in done for example in batch]
    return examples, moments, [PromptTree.of([example]) for example in examples]


def scored(
    score: Any, warm_up: Sequence[list[Example]], timed: Sequence[list[Example]], end: float
) -> tuple[list[list[Example]], list[float]]:
    """Score batches until the time is up; return the timed ones and their moments."""
    for batch in warm_up:
        score(batch)
    finish()
    moments = [now()]
    for batch in timed:
        score(batch)
        finish()
        moments.append(now())
        if moments[-1] > end:
            break
    return list(timed[: len(moments) - 1]), moments


@dataclass(frozen=True)
class Options:
    """What is measured, and for how long."""

    device: str
    busy: bool
    sizes: tuple[str, ...]
    formats: tuple[str, ...]
    each_s: float
    minutes: float


def measure(options: Options) -> list[Row]:
    """Measure everything that there is time for, one process after the other."""
    end = time.monotonic() + 60 * options.minutes
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if options.device == "cpu" else {})
    environment |= {BUSY: "1", "OMP_NUM_THREADS": "1"} if options.busy else {}
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for number_format in options.formats:
        for size in options.sizes:
            if _child(["--write", size], environment, end) is None:
                continue
            for contender in CONTENDERS:
                given = [size, contender, number_format, str(options.each_s)]
                result = _child(["--only", *given], environment, min(end, time.monotonic() + options.each_s + GRACE_S))
                if result is not None:
                    found[size, contender, number_format] = result
    return [row for key in found for row in _rows(found, *key)]


def _child(arguments: list[str], environment: dict[str, str], end: float) -> dict[str, Any] | None:
    """Run this file in a process of its own; return what it prints last, or say why there is nothing."""
    left = end - time.monotonic()
    what = " ".join(arguments)
    if left <= 0:
        print(f"{what}: left out, no time left", flush=True)
        return None
    try:
        command = [sys.executable, __file__, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=left, env=environment)
    except subprocess.TimeoutExpired:
        print(f"{what}: left out, it took more than {left:.0f} s", flush=True)
        return None
    if done.returncode:
        print(f"{what}: failed: {(done.stderr.strip().splitlines() or ['no word'])[-1]}", flush=True)
        return None
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{what}: {result}", flush=True)
    return result


def _rows(
    found: dict[tuple[str, str, str], dict[str, Any]], size: str, contender: str, number_format: str
) -> list[Row]:
    """Return the lines of one of our two works, with its peer's where that was measured."""
    peer = {"ralt": "trl", "lsr": "transformers"}.get(contender)
    if peer is None:
        return []
    ours, theirs = found[size, contender, number_format], found.get((size, peer, number_format))
    what = f"{contender.upper()}, {size}" + (", 4 bits" if number_format == "nf4" else "")
    names = {"trl": "TRL's SFTTrainer", "transformers": "transformers in padded batches"}
    figures = {"ours": ours, peer: theirs}
    rows = [Row(f"{what}: share of the device's peak", ours["peak_share_percent"], "%", figures=figures)]
    if theirs:
        faster = ours["tokens_a_second"] / theirs["tokens_a_second"]
        memory = 100 * ours["peak_mb"] / theirs["peak_mb"]
        rows += [
            Row(f"{what}: share of the device's peak of {names[peer]}", theirs["peak_share_percent"], "%"),
            Row(f"{what}: tokens a second against {names[peer]}", faster, "x"),
            Row(f"{what}: peak memory, share of that of {names[peer]}", memory, "%"),
        ]
    return rows


def parse_options() -> Options:
    """Take this file's own options off the command line."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--device", choices=("cpu", "cuda"), default=best_device())
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--sizes", default="")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--each-s", type=float)
    parser.add_argument("--minutes", type=float)
    found, sys.argv[1:] = parser.parse_known_args()
    if found.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch finds no GPU here")
    on_gpu = found.device == "cuda"
    sizes = found.sizes.split(",") if found.sizes else list(SIZES) if on_gpu else ["Qwen2.5-0.5B"]
    if unknown := [size for size in sizes if size not in SIZES]:
        raise SystemExit(f"--sizes: there is no {unknown[0]}; there are {', '.join(SIZES)}")
    each, minutes = found.each_s or (30 if on_gpu else 600), found.minutes or (9.5 if on_gpu else 90)
    return Options(found.device, found.busy, tuple(sizes), tuple(found.formats.split(",")), each, minutes)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write_random_model(sys.argv[2], FILES, best_device())
        print("{}")
    elif sys.argv[1:2] == ["--only"]:
        print(json.dumps(Measurement(*sys.argv[2:5], seconds=float(sys.argv[5])).run()))
    else:
        options = parse_options()
        main(lambda: measure(options))
