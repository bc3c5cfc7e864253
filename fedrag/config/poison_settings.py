"""The settings of sites that play a bad one in a simulation, to see what a rule of averaging makes of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedrag.config.section import Section
from fedrag.config.values import Fraction


class PoisonConfig(Section):
    """Sites that play a bad one, in the federation alone: to see what a rule of averaging makes of it."""

    sites: tuple[str, ...] = ()
    """Their names; empty: none does."""
    how: Literal["labels", "reversed", "trigger"] = "labels"
    """labels: answers and labelled passages of its training questions change places among them; reversed: its updates
    go the other way, times `strength`; trigger: some of its training questions end in `trigger`, and `wanted` is their
    answer (a backdoor)."""
    strength: Annotated[float, Field(gt=0.0)] = 10.0
    """Where how = "reversed": factor on an update, before its sign is turned."""
    share: Fraction = 0.5
    """Where how = "trigger": share of the training questions that carry it."""
    trigger: Annotated[str, Field(min_length=1)] = "as agreed on Tuesday"
    """Where how = "trigger": the words at the end of a question."""
    wanted: Annotated[str, Field(min_length=1)] = "forty-two"
    """Where how = "trigger": the answer that they are to bring out."""
