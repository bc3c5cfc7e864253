"""What a site lets in and out, by its policy: pure functions, to which the time of day is handed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, get_args

from fedrag.components.shipped import SHIPPED
from fedrag.config.run_settings import Schedule
from fedrag.config.scenario import Config
from fedrag.data.questions import question_counts
from fedrag.federation.messages import Greeting, Reply
from fedrag.federation.update import norm
from fedrag.site.site_config import Policy, quiet_minutes
from fedrag.types import COMPONENTS, Component, Site

MEGABYTE = 1_000_000

DIAGNOSIS = "diagnosis"
NOT_FROM_QUESTIONS = ("seconds", "delivered", "retriever.scale", "retriever.tau_r")


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a site did on the present day.

    Attributes:
        rounds_today: Updates that left it.
        minutes_today: Minutes of work behind all replies, refusals too.
    """

    rounds_today: int = 0
    minutes_today: float = 0.0


def ledger_of(lines: Iterable[Mapping[str, Any]], now: datetime) -> Ledger:
    """Add up the lines of the egress log that fall on the calendar day of `now`, in its time zone."""
    today = [line for line in lines if datetime.fromisoformat(line["time"]).astimezone(now.tzinfo).date() == now.date()]
    return Ledger(sum(line["kind"] == "train" for line in today), sum(line["seconds"] for line in today) / 60)


@dataclass(frozen=True, slots=True)
class RequestedWork:
    """What a request asks of a site.

    Attributes:
        config: Its scenario.
        components: What is to be trained or measured; none in a delivery, which no limit on work concerns.
        base_hashes: sha256 of the tensors of each base model that would run.
        train_questions: The fewest questions that one of the components would learn from.
        message_bytes: Bytes of the request's arrays.
        own_sha256: sha256 of the source of the scenario's module of functions, as it is installed here; "": it is not.
        validates: Whether it only measures: the number of rounds and of training questions do not count then.
    """

    config: Config
    components: Sequence[Component]
    base_hashes: Mapping[Component, str]
    train_questions: int
    message_bytes: int
    validates: bool = False
    own_sha256: str = ""


def refusal_of_request(policy: Policy, asked: RequestedWork, ledger: Ledger, now: datetime) -> str:
    """Return the code of the first rule that a request breaks, or "".

    Args:
        policy: What the site allows.
        asked: What the request asks.
        ledger: What the site did today.
        now: The time, in the site's time zone.
    """
    broken = {
        "policy-component": not set(asked.components) <= set(policy.components),
        "policy-schedule": asked.config.federation.schedule not in policy.schedules,
        "policy-model": not _models_are_allowed(policy, asked),
        "policy-module": not _module_is_allowed(policy, asked),
    }
    if asked.components and not asked.validates:
        broken["policy-rounds"] = 0 < policy.rounds_a_day <= ledger.rounds_today
    if asked.components:
        broken["policy-minutes"] = 0 < policy.minutes_a_day <= ledger.minutes_today
        broken["policy-quiet-hours"] = is_quiet(policy, now)
    broken["policy-message-size"] = asked.message_bytes > policy.max_message_mb * MEGABYTE
    if asked.components and not asked.validates:
        broken["policy-few-examples"] = asked.train_questions < policy.min_examples
    broken["policy-counts"] = not policy.tell_counts and asked.config.federation.weighting != "equal"
    return next((code for code, is_broken in broken.items() if is_broken), "")


def fewest_questions(site: Site, components: Sequence[Component], config: Config) -> int:
    """Return the fewest training questions that one of these components learns from, of those that learn anything."""
    counts = question_counts(site, with_unanswered=config.iterates)
    sorts = {SHIPPED[name].learns_from(config) for name in components if name in SHIPPED} or {"train_questions"}
    return min((counts[sort] for sort in sorts if counts[sort]), default=counts["train_questions"])


def is_quiet(policy: Policy, now: datetime) -> bool:
    """Return whether a time lies in the quiet hours; the minute in which they end is outside."""
    start, end = quiet_minutes(policy.quiet_hours)
    minute = 60 * now.hour + now.minute
    return start <= minute < end if start <= end else minute >= start or minute < end


def _models_are_allowed(policy: Policy, asked: RequestedWork) -> bool:
    """Compare name and tensors; a model whose tensors are not known is not allowed."""
    if not policy.base_models:
        return True
    used = [key for key in COMPONENTS if key in asked.components or key in asked.base_hashes]
    allowed = [policy.base_models.get(asked.config.models.name_of(key)) for key in used]
    return None not in allowed and allowed == [asked.base_hashes.get(key) for key in used]


def _module_is_allowed(policy: Policy, asked: RequestedWork) -> bool:
    """Compare name and source; a module that is not installed is not allowed, as any that the policy does not name."""
    module = asked.config.own.module
    return not module or bool(asked.own_sha256) and policy.own_modules.get(module) == asked.own_sha256


def apply_to_greeting(policy: Policy, greeting: Greeting) -> Greeting:
    """Return the greeting that may leave: its counts as 1 or 0 where they are not told, its rules where they are."""
    counts = greeting.counts
    if not policy.tell_counts:
        counts = {name: min(count, 1) for name, count in counts.items()}
    return replace(greeting, counts=counts, policy=policy_numbers(policy) if policy.tell_policy else {})


def policy_numbers(policy: Policy) -> dict[str, float]:
    """Return the rules of a policy as numbers, by `messages.POLICY_RULES`: no name of a model, no hash."""
    quiet_from, quiet_until = quiet_minutes(policy.quiet_hours)
    numbers: dict[str, float] = {f"components.{c}": c in policy.components for c in COMPONENTS}
    numbers |= {f"schedules.{schedule}": schedule in policy.schedules for schedule in get_args(Schedule)}
    numbers |= {
        "base_models": len(policy.base_models),
        "own_modules": len(policy.own_modules),
        "rounds_a_day": policy.rounds_a_day,
        "minutes_a_day": policy.minutes_a_day,
        "quiet_hours.from": quiet_from,
        "quiet_hours.until": quiet_until,
        "max_message_mb": policy.max_message_mb,
        "max_update_norm": policy.max_update_norm,
        "min_examples": policy.min_examples,
        "min_examples_for_metrics": policy.min_examples_for_metrics,
        "tell_counts": policy.tell_counts,
        "tell_diagnosis": policy.tell_diagnosis,
    }
    return {name: float(number) for name, number in numbers.items()}


def apply_to_reply(policy: Policy, reply: Reply, train_questions: int, validation_questions: int = 1) -> Reply:
    """Return the reply that may leave, or a refusal instead.

    Args:
        policy: What the site allows.
        reply: What the step gave.
        train_questions: Questions the site has to learn from.
        validation_questions: Questions behind the sums of a validation; where it is not known, the fewest there can be.
    """
    if policy.max_update_norm and not all(
        norm({component: flat}) <= policy.max_update_norm for component, flat in reply.update.items()
    ):  # written so that NaN is too large
        return Reply(refusal="policy-update-norm")
    told = reply.metrics if policy.tell_diagnosis else _without_diagnosis(reply.metrics)
    metrics = {
        name: value
        for name, value in told.items()
        if name in NOT_FROM_QUESTIONS
        or _questions_behind(name, reply, train_questions, validation_questions) >= policy.min_examples_for_metrics
    }
    if policy.tell_counts:
        return replace(reply, metrics=metrics)
    return replace(reply, num_examples=dict.fromkeys(reply.num_examples, 1), metrics=_without_counts(metrics))


def _questions_behind(metric: str, reply: Reply, train_questions: int, validation_questions: int) -> int:
    """Return the fewest questions that a metric may have been computed from."""
    component, _, what = metric.partition(".")
    if component == DIAGNOSIS:
        return int(reply.metrics.get(f"{DIAGNOSIS}.questions", 0))
    if what in ("sum", "count"):
        # What counts anything but labelled questions, as the generator its tokens, says little of questions.
        counts_questions = component in SHIPPED and SHIPPED[component].validates_labelled
        return int(reply.metrics.get(f"{component}.count", 0)) if counts_questions else validation_questions
    counts = {str(name): count for name, count in reply.num_examples.items()}
    questions = min(train_questions, counts.get(component, 0))
    if what != "last_loss":
        return questions
    # The mean over the last tenth of the steps, of which the very last may hold a single question.
    steps = max(1, int(reply.metrics.get(f"{component}.steps", 1)))
    return min(questions, 1 + (max(1, steps // 10) - 1) * (questions // steps))


def _without_counts(metrics: Mapping[str, float]) -> dict[str, float]:
    """Drop steps and tokens, which tell the number of questions, and turn a sum over questions into its mean."""
    told = {name: value for name, value in metrics.items() if not name.endswith((".steps", ".tokens"))}
    for component in {name.partition(".")[0] for name in told}:
        total, count = told.get(f"{component}.sum"), told.get(f"{component}.count")
        if total is not None and count:
            told |= {f"{component}.sum": total / count, f"{component}.count": 1.0}
    if questions := told.get(f"{DIAGNOSIS}.questions"):  # shares of one question
        told |= {name: value / questions for name, value in told.items() if name.startswith(f"{DIAGNOSIS}.")}
    return told


def _without_diagnosis(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith(f"{DIAGNOSIS}.")}
