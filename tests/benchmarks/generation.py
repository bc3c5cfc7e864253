"""Generation for evaluation: answers a second against one question at a time, and whether they are the same answers.

Both decode greedily with the same adapter in place, from the same prompts: test questions of the shipped
sites with two retrieved passages each. The peers' loop calls the model's `generate` for one prompt after the other, on
every PEERS_SHARE-th question, compared by answers a second. Whether the answers are the same is asked in float32, where
a batch changes a logit by some 1e-5; in bfloat16 two nearly equal tokens may change places, which the second row shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from bench import Row, in_turn, main
from models import config, load_generator, load_retriever, sites

from fedrag.models.generator import Generator
from fedrag.rag.indexing import build_index
from fedrag.rag.pipeline import Retrieved, generate_answers, prompt_builder, prompt_groups, retrieve

QUESTIONS, TURNS, PEERS_SHARE = 48, 3, 8


def asked() -> list[Retrieved]:
    """Return test questions of the shipped sites with their passages."""
    settings = config()
    retriever = load_retriever()
    found = []
    for site in sites():
        index = build_index(retriever, site.passages, settings.rag.chunk_overlap)
        hits = retrieve(retriever, index, [question.question for question in site.test], settings.rag.passages)
        by_id = {passage.id: passage for passage in site.passages}
        found += [
            Retrieved.of(question.question, top, by_id, index) for question, top in zip(site.test, hits, strict=True)
        ]
    return found[:QUESTIONS]


def in_batches(generator: Generator, questions: Sequence[Retrieved]) -> list[str]:
    """Answer as an evaluation does."""
    settings = config()
    answered = generate_answers(generator, questions, settings.rag, settings.evaluation.batch_tokens, 1.0)
    return [answer.text for answer in answered]


def one_at_a_time(generator: Generator, questions: Sequence[Retrieved]) -> list[str]:
    """Answer one question after the other with the model's own `generate`."""
    settings = config().rag
    builder = prompt_builder(generator, settings)
    answers = []
    for item in questions:
        [(_, group)] = prompt_groups(item.passages, settings)
        prompt = builder.example(item.question, group).prompt
        with torch.inference_mode():
            ids = generator.model.generate(  # type: ignore[operator]
                input_ids=torch.tensor([prompt], device=generator.model.device),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long, device=generator.model.device),
                max_new_tokens=settings.answer_tokens + 1,
                do_sample=False,
                pad_token_id=generator.tokenizer.pad_token_id,
            )
        answers.append(builder.text(ids[0, len(prompt) :].tolist()[: settings.answer_tokens]))
    return answers


def adapted(dtype: str = "auto") -> Generator:
    """Return the generator with an adapter that changes something, as training leaves it."""
    generator = load_generator(dtype)
    chance = np.random.default_rng(0)
    state = generator.initial_state(seed=0)
    zeros = [tensor for name, tensor in state.items() if ".lora_B." in name]
    for tensor in zeros:
        tensor += chance.normal(0, 1e-3, tensor.shape).astype(np.float32)
    generator.set_adapter(state)
    return generator


def measure() -> list[Row]:
    """Compare batched generation with one question at a time."""
    generator, exact = adapted(), adapted("float32")
    questions = asked()
    few = questions[::PEERS_SHARE]
    in_batches(generator, few)
    taken = in_turn(
        TURNS,
        ours=lambda: in_batches(generator, questions),
        peers=lambda: one_at_a_time(generator, few),
    )
    rates = {"ours": len(questions) / taken["ours"], "peers": len(few) / taken["peers"]}
    dtype = str(generator.dtype).removeprefix("torch.")
    figures = {f"{name}_answers_a_second": rate for name, rate in rates.items()}
    rows = [
        Row(
            f"generation in {dtype}: against one question at a time",
            rates["ours"] / rates["peers"],
            "x",
            5,
            figures=figures,
        )
    ]
    same = _same(in_batches(exact, few), one_at_a_time(exact, few))
    rows.append(Row("generation in float32: answers that are the same", same, "%", 100))
    if generator.dtype != torch.float32:
        same = _same(in_batches(generator, few), one_at_a_time(generator, few))
        rows.append(Row(f"generation in {dtype}: answers that are the same", same, "%"))
    return rows


def _same(left: Sequence[str], right: Sequence[str]) -> float:
    return 100 * sum(a == b for a, b in zip(left, right, strict=True)) / len(left)


if __name__ == "__main__":
    main(measure)
