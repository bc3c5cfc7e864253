"""Answers several questions together as if each were asked alone.

In a batch prompts are padded and products are taken in another order, which moves every score a little. Greedy decoding
chooses the best token, so an answer can change only where two tokens are nearly equal. Such answers are decoded again,
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from fedrag.config.rag_settings import RagConfig
from fedrag.models.generator import Generator
from fedrag.passes.threads import has_dynamic_rope
from fedrag.rag.pipeline import Answered, Retrieved, generate_answers

SURE_LEADS: dict[torch.dtype, float] = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Leads, as parts of the largest score, that no batch turns round: more than twice of what it moves a score.

With SmolLM2-135M in float32 that is 3e-6; the bound for bfloat16 follows from its shorter numbers. A test measures both
where a machine computes in them.
"""


def answer_as_if_alone(
    generator: Generator,
    asked: Sequence[Retrieved],
    config: RagConfig,
    batch_tokens: int,
    temperature: float,
    on_text: Callable[[int, str], None] | None = None,
) -> list[Answered]:
    """Return the answer that `generate_answers` gives to each question alone; it describes the arguments.

    Questions with several prompts each are answered one by one: their answers are chosen by scores that a batch moves.
    So are all questions of a model whose rotary embeddings depend on the longest text of a batch.

    Args:
        generator: Answers with its current adapter.
        asked: Questions with their passages.
        config: Prompt settings.
        batch_tokens: Padded prompt tokens of a batch; 0: what suits the device.
        temperature: Temperature of the softmax over retrieval scores, for questions with several prompts.
        on_text: Called with the number of a question and its answer so far, of which no token is in doubt.
    """
    sure = SURE_LEADS[generator.dtype]

    def alone(row: int) -> Answered:
        def tell(_: int, text: str, lead: float) -> None:
            if on_text is not None:
                on_text(row, text)

        watch = tell if on_text is not None else None
        return generate_answers(generator, [asked[row]], config, batch_tokens, temperature, watch=watch)[0]

    def tell_what_is_sure(row: int, text: str, lead: float) -> None:
        if on_text is not None and lead > sure:
            on_text(row, text)

    several = 0 < config.passages_per_prompt < config.passages
    if len(asked) < 2 or several or has_dynamic_rope(generator.model.config):
        return [alone(row) for row in range(len(asked))]
    together = generate_answers(generator, asked, config, batch_tokens, temperature, watch=tell_what_is_sure)
    return [reply if reply.lead > sure else alone(row) for row, reply in enumerate(together)]
