"""Answers several questions together as if each were asked alone.

In a batch prompts are padded and products are taken in another order, which moves every score a little. Greedy decoding
chooses the best token, so an answer can change only where two tokens are nearly equal. Such answers are decoded again,
alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fedrag.config.rag_settings import RagConfig
from fedrag.models.generator import Generator
from fedrag.passes.threads import has_dynamic_rope
from fedrag.rag.pipeline import Answered, Retrieved, generate_answers

SURE_LEADS: dict[torch.dtype, float] = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Leads, as parts of the largest score, that no batch turns round; more than twice of what a batch moves a score."""


def answer_as_if_alone(
    generator: Generator, asked: Sequence[Retrieved], config: RagConfig, batch_tokens: int, temperature: float
) -> list[Answered]:
    """Return the answer that `generate_answers` gives to each question alone; it describes the arguments.

    Questions with several prompts each are answered one by one: their answers are chosen by scores that a batch moves.
    So are all questions of a model whose rotary embeddings depend on the longest text of a batch.
    """

    def alone(one: Retrieved) -> Answered:
        return generate_answers(generator, [one], config, batch_tokens, temperature)[0]

    several = 0 < config.passages_per_prompt < config.passages
    if len(asked) < 2 or several or has_dynamic_rope(generator.model.config):
        return [alone(one) for one in asked]
    together = generate_answers(generator, asked, config, batch_tokens, temperature, watch=True)
    sure = SURE_LEADS[generator.dtype]
    return [reply if reply.lead > sure else alone(one) for one, reply in zip(asked, together, strict=True)]
