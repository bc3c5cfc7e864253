"""The lines of a scenario that follow from a diagnosis, and what they depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedrag.config.scenario import Config
from fedrag.config.schedule import trained_components
from fedrag.diagnosis.tally import Tally
from fedrag.types import Component


@dataclass(frozen=True, slots=True)
class Situation:
    """What advice depends on besides the counts.

    Attributes:
        config: The run's scenario.
        trained: Components that were trained in what was diagnosed; none in untouched models.
        has_labels: Whether training questions name their passages; None: it is not known.
        answer_needs: Tokens that right answers take, at least; 0: it is not known.
    """

    config: Config
    trained: tuple[Component, ...] = ()
    has_labels: bool | None = None
    answer_needs: int = 0

    @classmethod
    def of(
        cls, config: Config, *, base: bool = False, has_labels: bool | None = None, answer_needs: int = 0
    ) -> Situation:
        """Return the situation of a run's untouched (`base`) or trained models."""
        return cls(config, () if base else trained_components(config.federation), has_labels, answer_needs)


def scenario_lines(parts: Sequence[str], tally: Tally, situation: Situation) -> tuple[str, ...]:
    """Return the lines of TOML that do what is advised, each section once.

    Args:
        parts: The parts that are named; what no setting mends, such as documents, has no line.
        tally: The counts.
        situation: What was diagnosed.
    """
    rag = situation.config.rag
    sections: dict[str, dict[str, str]] = {"rag": {}, "federation": {}, "retriever": {}}
    if "limits" in parts and tally.cut > tally.too_long:
        sections["rag"]["prompt_tokens"] = f"{2 * rag.prompt_tokens}"
    if "limits" in parts and tally.too_long:
        sections["rag"]["answer_tokens"] = f"{_next_16(max(situation.answer_needs, rag.answer_tokens + 1))}"
    if "retriever" in parts and not rag.passages:
        sections["rag"]["passages"] = "2"
    elif "retriever" in parts and rag.search == "bm25":
        sections["rag"]["search"] = '"hybrid"'
    if "retriever" in parts and situation.has_labels is False:
        sections["retriever"]["loss"] = '"lsr"'
    sections["federation"] = _training([part for part in ("generator", "retriever") if part in parts], situation)
    return tuple(
        line
        for name, settings in sections.items()
        if settings
        for line in (f"[{name}]", *(f"{key} = {value}" for key, value in settings.items()))
    )


def _training(learning: Sequence[str], situation: Situation) -> dict[str, str]:
    """Return the settings that train these parts: the schedule, or more rounds where the run trained them already."""
    federation = situation.config.federation
    if not learning or federation.components:
        return {}
    wanted = [part for part in ("generator", "retriever") if part in learning or part in situation.trained]
    if set(wanted) <= set(situation.trained):
        return {"rounds": f"{2 * federation.rounds}", "keep": '"best"'}
    return {"schedule": f'"{wanted[0]}"' if len(wanted) == 1 else '"joint"'}


def _next_16(count: int) -> int:
    """Return the next multiple of 16.

    >>> _next_16(33)
    48
    """
    return -(-count // 16) * 16
