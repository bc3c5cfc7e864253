"""What the server asks sites about the global state: scores on their validation questions, and why answers are wrong.

Sums and counts come back, and nothing else; see `fedrag.site.validation`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median_low

from fedrag.errors import MessageError
from fedrag.federation.exchange import Federation, KnownSite, ask
from fedrag.federation.messages import VALIDATE, Request, request_content, told_diagnosis
from fedrag.federation.secure_fold import masked_scores
from fedrag.types import Component, State


def ask_scores(
    federation: Federation,
    state: State,
    components: tuple[Component, ...],
    sites: Sequence[KnownSite],
    round_number: int,
) -> dict[Component, float]:
    """Return a mean over all sites' validation questions for each component that has one.

    Args:
        federation: The run and the way to its sites.
        state: The tensors to score.
        components: The components to score.
        sites: Those that greeted.
        round_number: The round whose state it is; 0: the one before the first.
    """
    if federation.config.federation.secure:
        return masked_scores(federation, _request(federation, state, components, round_number), _able(sites))
    told = [metrics for _, metrics in _asked(federation, state, components, sites, round_number, "validation")]
    ratio = federation.config.federation.max_weight_ratio
    return {c: score for c in components if (score := _mean_score(told, c, ratio)) is not None}


def ask_diagnosis(
    federation: Federation, state: State, sites: Sequence[KnownSite], round_number: int
) -> dict[str, dict[str, float]]:
    """Return the counts of causes that sites told, by name; a site whose policy keeps them tells none."""
    answers = _asked(federation, state, (), sites, round_number, "diagnosis")
    return {name: counts for name, metrics in answers if (counts := told_diagnosis(metrics))}


def _asked(
    federation: Federation,
    state: State,
    components: tuple[Component, ...],
    sites: Sequence[KnownSite],
    round_number: int,
    what: str,
) -> Iterator[tuple[str, dict[str, float]]]:
    """Ask the sites that have validation questions; a request that names no component asks for the diagnosis."""
    request = _request(federation, state, components, round_number)
    for site, reply in ask(federation.grid, VALIDATE, request, request_content(request), _able(sites)):
        if isinstance(reply, MessageError):
            federation.display.say(f"{site.name} is left out of the {what} of round {round_number}: {reply}")
        else:
            yield site.name, reply.metrics


def _request(federation: Federation, state: State, components: tuple[Component, ...], round_number: int) -> Request:
    settings = federation.config.federation
    return Request(
        federation.config.to_toml(),
        round_number,
        state,
        components,
        deadline_s=settings.deadline_s,
        wire=settings.wire,
    )


def _able(sites: Sequence[KnownSite]) -> list[KnownSite]:
    """Return the sites that have validation questions."""
    return [site for site in sites if site.greeting.counts.get("validation_questions")]


def _mean_score(told: Sequence[Mapping[str, float]], component: Component, ratio: float = 0.0) -> float | None:
    """Divide the sites' sum by their count; fsum gives the same bits in any order of arrival.

    Args:
        told: What the sites told.
        component: Which component's.
        ratio: No count weighs more than so many times the median one, as in training; 0: whatever it is.
    """
    pairs = [(metrics.get(f"{component}.sum", 0.0), metrics.get(f"{component}.count", 0.0)) for metrics in told]
    pairs = [(total, count) for total, count in pairs if count >= 1]
    if not pairs:
        return None
    most = ratio * median_low([count for _, count in pairs]) if ratio else math.inf
    kept = [(total, count) if count <= most else (total / count * most, most) for total, count in pairs]
    return math.fsum(total for total, _ in kept) / math.fsum(count for _, count in kept)
