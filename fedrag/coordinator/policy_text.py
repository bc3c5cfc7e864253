"""A site's policy in words: only the rules that restrict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

from fedrag.config.run_settings import Schedule
from fedrag.secure_sum.roster import MIN_SITES
from fedrag.types import COMPONENTS

USUAL_MESSAGE_MB = 500.0  # a site's defaults, which are not shown
USUAL_COLLUDING = 1


def policy_phrases(numbers: Mapping[str, float]) -> list[str]:
    """Return a short phrase for each rule that restricts; "allows everything" where none does.

    Args:
        numbers: What a site told, by `greeting.POLICY_RULES`; a rule that is missing restricts nothing.

    Returns:
        The phrases; none where it told nothing.

    >>> policy_phrases({"components.retriever": 0.0, "quiet_hours.from": 1350.0, "quiet_hours.until": 360.0})
    ['generator only', 'no work 22:30-06:00 (its time)']
    """
    if not numbers:
        return []
    return [*_of_work(numbers), *_of_messages(numbers)] or ["allows everything"]


def _of_work(numbers: Mapping[str, float]) -> Iterator[str]:
    """Yield what may be trained, and when."""
    components = [component for component in COMPONENTS if numbers.get(f"components.{component}", 1)]
    if len(components) < len(COMPONENTS):
        yield " and ".join(components) + " only" if components else "no component"
    schedules = [schedule for schedule in get_args(Schedule) if numbers.get(f"schedules.{schedule}", 1)]
    if len(schedules) < len(get_args(Schedule)):
        yield f"schedules: {', '.join(schedules) or 'none'}"
    if models := numbers.get("base_models", 0):
        yield f"only {count_text(models, 'named model')}"
    if rounds := numbers.get("rounds_a_day", 0):
        yield f"at most {count_text(rounds, 'round')} a day"
    if minutes := numbers.get("minutes_a_day", 0):
        yield f"at most {count_text(minutes, 'minute')} a day"
    if rank := numbers.get("max_rank", 0):
        yield f"adapters up to rank {number_text(rank)}"
    if not numbers.get("measure", 1):
        yield "measures nothing"
    if epsilon := numbers.get("max_epsilon", 0):
        yield f"only with noise, up to epsilon {number_text(epsilon)}"
    quiet = numbers.get("quiet_hours.from", 0), numbers.get("quiet_hours.until", 0)
    if quiet[0] != quiet[1]:
        yield f"no work {time_text(quiet[0])}-{time_text(quiet[1])} (its time)"


def _of_messages(numbers: Mapping[str, float]) -> Iterator[str]:
    """Yield what may come in and what goes out."""
    if (message_mb := numbers.get("max_message_mb", USUAL_MESSAGE_MB)) < USUAL_MESSAGE_MB:
        yield f"messages up to {number_text(message_mb)} MB"
    if update_norm := numbers.get("max_update_norm", 0):
        yield f"updates up to norm {number_text(update_norm)}"
    if (examples := numbers.get("min_examples", 1)) > 1:
        yield f"updates only from {count_text(examples, 'question')} on"
    if (examples := numbers.get("min_examples_for_metrics", 1)) > 1:
        yield f"numbers only from {count_text(examples, 'question')} on"
    if numbers.get("secure", 0):
        yield "updates only in a secure sum"
    if (sites := numbers.get("secure_min_sites", MIN_SITES)) > MIN_SITES:
        yield f"secure sums of at least {count_text(sites, 'site')}"
    if (sites := numbers.get("secure_colluding", USUAL_COLLUDING)) > USUAL_COLLUDING:
        yield f"secure sums that bear {count_text(sites, 'site')} on the coordinator's side"
    if not numbers.get("tell_counts", 1):
        yield "counts are not told"


def number_text(value: float) -> str:
    """Return a number as a person writes it; a site may send any.

    >>> number_text(10.0), number_text(1200.0), number_text(0.25), number_text(1e300)
    ('10', '1,200', '0.25', '1e+300')
    """
    return f"{value:,.10g}"


def count_text(value: float, one: str) -> str:
    """Return a number with its noun.

    >>> count_text(1.0, "round"), count_text(10.0, "round")
    ('1 round', '10 rounds')
    """
    return f"{number_text(value)} {one if value == 1 else one + 's'}"


def time_text(minute: float) -> str:
    """Return a minute of the day as the time on a clock.

    >>> time_text(0.0), time_text(1350.0)
    ('00:00', '22:30')
    """
    hours, minutes = divmod(int(minute) % (24 * 60), 60)
    return f"{hours:02d}:{minutes:02d}"
