"""What a site would say to a run, by the rules of its policy that it told when it was last greeted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components, find_component
from fedrag.config.averaging import weighs_by_counts
from fedrag.config.scenario import Config
from fedrag.config.schedule import components_of, rounds_training, trained_components
from fedrag.coordinator.policy_text import count_text, number_text, time_text
from fedrag.federation.refusal_codes import REFUSALS
from fedrag.secure_sum.sum_terms import threshold
from fedrag.site.policy import MEGABYTE
from fedrag.text import plural
from fedrag.types import COMPONENTS, Component


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run would ask of a site.

    Attributes:
        config: The scenario.
        message_bytes: Bytes of the arrays of its largest request.
        counts: What the site told of the numbers of its questions.
        sites: How many sites a round would ask; 0: that is not known.
    """

    config: Config
    message_bytes: int
    counts: Mapping[str, int]
    sites: int = 0


def refusals_of_all(policy: Mapping[str, float], asked: Asked, components: Components = SHIPPED) -> list[str]:
    """Return the codes with which a site would refuse every round, whatever the time and what it did before.

    Args:
        policy: What the site told, by `greeting.POLICY_RULES`; a rule that is missing restricts nothing.
        asked: What the run would ask.
        components: What can be trained, by name.
    """
    federation = asked.config.federation
    refused = _refused_components(policy, asked.config)
    rounds = [components_of(federation, number) for number in range(1, federation.rounds + 1)]
    broken = {
        "policy-component": all(refused & set(names) for names in rounds),
        "policy-schedule": not policy.get(f"schedules.{federation.schedule}", 1),
        "policy-module": bool(asked.config.own.module) and not policy.get("own_modules", 0),
        "policy-rank": policy.get("max_rank", 0) > 0
        and all(asked.config.beyond_rank(names, int(policy["max_rank"])) for names in rounds),
        "policy-message-size": asked.message_bytes > policy.get("max_message_mb", float("inf")) * MEGABYTE,
        "policy-secure": bool(policy.get("secure", 0)) and not federation.secure,
        "policy-few-examples": all(
            _fewest_questions(policy, asked, names, components) < policy.get("min_examples", 1) for names in rounds
        ),
        "policy-epsilon": policy.get("max_epsilon", 0) > 0 and not asked.config.privacy.is_on,
        "secure-sites": federation.secure and 0 < asked.sites < policy.get("secure_min_sites", 0),
        "secure-colluding": federation.secure
        and asked.sites > 0
        and threshold(asked.sites, federation.secure_colluding)
        < threshold(asked.sites, int(policy.get("secure_colluding", 0))),
        "policy-counts": not federation.secure
        and not (policy.get("tell_counts", 1) and not policy.get("secure", 0))
        and weighs_by_counts(federation),
    }
    return [code for code, is_broken in broken.items() if is_broken]


def reservations(policy: Mapping[str, float], asked: Asked) -> Iterator[str]:
    """Yield in words what else may keep a site's reply away, in some rounds or at some times.

    Args:
        policy: What the site told, by `greeting.POLICY_RULES`.
        asked: What the run would ask.
    """
    config, rounds = asked.config, asked.config.federation.rounds
    for name in sorted(_refused_components(policy, config)):
        yield f"refuses the {plural(rounds_training(config.federation, name), 'round')} that train the {name}"
    if models := policy.get("base_models", 0):
        yield f"works with {count_text(models, 'named model')} only, and does not tell which"
    if module := config.own.module:
        allowed = count_text(policy.get("own_modules", 0), "module")
        yield f"works with {module} only if that is among the {allowed} it allows"
    yield from _limits(policy, rounds)
    yield from _ranks(policy, config)
    if not policy.get("measure", 1):
        yield "refuses to measure models"
    quiet = policy.get("quiet_hours.from", 0), policy.get("quiet_hours.until", 0)
    if quiet[0] != quiet[1]:
        yield f"refuses {time_text(quiet[0])}-{time_text(quiet[1])} (its time)"
    if update_norm := policy.get("max_update_norm", 0):
        yield f"keeps an update whose norm is above {number_text(update_norm)}"
    if config.federation.diagnose and not policy.get("tell_diagnosis", 0):
        yield "does not tell why its answers are wrong"


def _ranks(policy: Mapping[str, float], config: Config) -> Iterator[str]:
    """Yield of which components a site trains a smaller part, and which it does not train at all."""
    rank = int(policy.get("max_rank", 0))
    trained = [name for name in trained_components(config.federation) if config.adapter_rank(name) > rank > 0]
    refused = config.beyond_rank(trained, rank)
    for name in trained:
        if name in refused:
            told = plural(rounds_training(config.federation, name), "round")
            yield f"refuses the {told} that train {name} adapters of more than rank {rank}"
        else:
            yield f"trains {name} adapters of rank {rank} only"


def _limits(policy: Mapping[str, float], rounds: int) -> Iterator[str]:
    """Yield after how much a site refuses to go on."""
    if 0 < (most := policy.get("rounds_a_day", 0)) < rounds:
        yield f"refuses after {count_text(most, 'round')} on one day"
    if minutes := policy.get("minutes_a_day", 0):
        yield f"refuses after {count_text(minutes, 'minute')} of work on one day"
    if epsilon := policy.get("max_epsilon", 0):
        yield f"refuses once epsilon {number_text(epsilon)} is spent of its questions, in all runs together"


def refusal_text(code: str) -> str:
    """Return a code with what it means."""
    return f"{REFUSALS[code]} ({code})"


def _refused_components(policy: Mapping[str, float], config: Config) -> set[Component]:
    """Return the trained components on which the site does no work."""
    trained = trained_components(config.federation)
    return {name for name in trained if name in COMPONENTS and not policy.get(f"components.{name}", 1)}


def _fewest_questions(
    policy: Mapping[str, float], asked: Asked, names: Sequence[Component], components: Components
) -> float:
    """Return the fewest questions from which a component of a round learns, of those that learn anything."""
    if max(asked.counts.values(), default=0) <= 1 or not policy.get("tell_counts", 1):
        return float("inf")  # it may have any number, and told 1 where it has some
    sorts = {find_component(components, name).learns_from(asked.config) for name in names}
    counts = [asked.counts.get(sort, 0) for sort in sorts]
    return min(filter(None, counts), default=asked.counts.get("train_questions", 0))
