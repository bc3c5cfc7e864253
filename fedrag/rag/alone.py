"""Answers several questions together as if each were asked alone.

In a batch prompts are padded and products are taken in another order, which moves every score a little. Greedy decoding
chooses the best token, so an answer can change where two tokens are nearly equal. In float32 such answers are few: they
are decoded again, alone. In bfloat16 they would be nearly all, so there decoding is batch-invariant
(`fedrag.passes.batch_invariant`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from fedrag.config.rag_settings import RagConfig
from fedrag.models.generator import Generator
from fedrag.passes.batch_invariant import can_be_batch_invariant
from fedrag.passes.threads import has_dynamic_rope
from fedrag.rag.pipeline import Answered, Retrieved, generate_answers

SURE_LEAD = 1e-4
"""Lead in float32, as a part of the largest score, that no batch turns round: more than twice of what it moves a score.

With SmolLM2-135M that is 3e-6; a test measures it.
"""


def answer_as_if_alone(
    generator: Generator,
    asked: Sequence[Retrieved],
    config: RagConfig,
    batch_tokens: int,
    temperature: float,
    on_text: Callable[[int, str], None] | None = None,
) -> list[Answered]:
    """Return the answer that each question gets alone; `generate_answers` describes the arguments.

    Questions with several prompts each are answered one by one: their answers are chosen by scores that a batch moves.
    So are all questions of a model whose rotary embeddings depend on the longest text of a batch, and in bfloat16 those
    of a model that does not keep the keys and values of all tokens.

    Args:
        generator: Answers with its current adapter.
        asked: Questions with their passages.
        config: Prompt settings.
        batch_tokens: Padded prompt tokens of a batch; 0: what suits the device.
        temperature: Temperature of the softmax over retrieval scores, for questions with several prompts.
        on_text: Called with the number of a question and its answer so far, of which no token is in doubt.
    """
    several = 0 < config.passages_per_prompt < config.passages
    exact = generator.dtype == torch.float32
    invariant = not exact and not several and can_be_batch_invariant(generator)

    def answer(rows: Sequence[int], sure: float = -math.inf) -> list[Answered]:
        """Answer questions in one call; tell what leads by more than is sure."""

        def tell(place: int, text: str, lead: float) -> None:
            if on_text is not None and lead > sure:
                on_text(rows[place], text)

        watch = tell if on_text is not None or sure > -math.inf else None
        some = [asked[row] for row in rows]
        return generate_answers(
            generator, some, config, batch_tokens, temperature, watch=watch, batch_invariant=invariant
        )

    every = range(len(asked))
    if invariant:
        return answer(every)
    if len(asked) < 2 or several or not exact or has_dynamic_rope(generator.model.config):
        return [answer([row])[0] for row in every]
    together = answer(every, SURE_LEAD)
    return [reply if reply.lead > SURE_LEAD else answer([row])[0] for row, reply in enumerate(together)]
