"""How the tokens of a prompt are shared out: question and passages have what the words around them leave."""

from __future__ import annotations

from collections.abc import Sequence

from fedrag.errors import ConfigError

LEAST_TOKENS = 16
"""Fewest tokens of a question or a passage that are worth reading, about a dozen words."""


def check_budget(prompt_tokens: int, frame: int, passages: int) -> None:
    """Refuse a budget that cannot hold a question and a useful piece of each passage.

    Args:
        prompt_tokens: The budget.
        frame: Tokens of all that stands around question and passages.
        passages: Passages in a prompt.

    Raises:
        ConfigError: It is too small.
    """
    least = frame + LEAST_TOKENS * (1 + passages)
    if prompt_tokens < least:
        shown = {0: "", 1: " and a passage"}.get(passages, f" and {passages} passages")
        each = ", with" if passages == 0 else " with"
        raise ConfigError(
            f"rag.prompt_tokens = {prompt_tokens} cannot hold the instruction and its surroundings ({frame} tokens), "
            f"a question{shown}{each} {LEAST_TOKENS} tokens or more of each; expected at least {least}"
        )


def share_out(room: int, question: int, passages: Sequence[int]) -> tuple[int, int]:
    """Return the most tokens that the question may take, and the most that each passage may.

    A question has at most half of the room, and leaves a useful piece of each passage, unless the passages need less.
    The passages share what it leaves: the longest are cut, all to the same length.

    Args:
        room: Tokens for the question and the passages.
        question: Tokens of the question.
        passages: Tokens of each passage.

    >>> share_out(200, 30, [10, 100, 100])
    (100, 80)
    >>> share_out(200, 5_000, [10, 20]), share_out(200, 5_000, [300])
    ((170, 20), (100, 100))
    """
    half = min(room // 2, room - LEAST_TOKENS * len(passages))
    most = max(room - sum(passages), half, 0)
    return most, common_limit(passages, room - min(question, most))


def common_limit(lengths: Sequence[int], room: int) -> int:
    """Return the largest limit such that all texts, cut to it, fit into the room.

    >>> common_limit([10, 100, 100], 150)
    70
    """
    limit = max(lengths, default=0)
    remaining, left = max(room, 0), len(lengths)
    for length in sorted(lengths):
        if length * left > remaining:
            return remaining // left
        remaining -= length
        left -= 1
    return limit
