"""What a site lets in and out, by its policy: pure functions, to which the time of day is handed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import get_args

from fedrag.components.shipped import SHIPPED
from fedrag.config.averaging import weighs_by_counts
from fedrag.config.run_settings import Schedule
from fedrag.config.scenario import Config
from fedrag.data.questions import distinct_questions, question_counts
from fedrag.federation.greeting import Greeting
from fedrag.federation.messages import Reply
from fedrag.federation.update import norm
from fedrag.site.site_config import Policy, quiet_minutes
from fedrag.site.work_ledger import Ledger, WorkKind
from fedrag.types import COMPONENTS, Component, Site

MEGABYTE = 1_000_000

DIAGNOSIS = "diagnosis"
EPSILON = "privacy.epsilon"
NOT_FROM_QUESTIONS = ("seconds", "delivered", "retriever.scale", "retriever.tau_r", EPSILON)


@dataclass(frozen=True, slots=True)
class RequestedWork:
    """What a request asks of a site.

    Attributes:
        config: Its scenario.
        components: What is to be trained or measured.
        base_hashes: sha256 of the tensors of each base model that would run.
        train_questions: The most questions that one of the components could learn from; of the one with the fewest.
        work: What is to be done; None: a greeting or a delivery, which no limit on work concerns.
        own_sha256: sha256 of the source of the scenario's module of functions, as it is installed here; "": it is not.
        is_masked: Whether what leaves is masked, for a secure sum.
    """

    config: Config
    components: Sequence[Component]
    base_hashes: Mapping[Component, str]
    train_questions: int
    work: WorkKind | None = "train"
    own_sha256: str = ""
    is_masked: bool = False


def refusal_of_request(policy: Policy, asked: RequestedWork, ledger: Ledger, now: datetime) -> str:
    """Return the code of the first rule that a request breaks, or "".

    Args:
        policy: What the site allows.
        asked: What the request asks.
        ledger: What the site did today, but for this request.
        now: The time, in the site's time zone.
    """
    kept_back = refusal_of_work(policy, asked.work, ledger, now) if asked.work else ""
    broken = {
        "policy-component": not set(asked.components) <= set(policy.components),
        "policy-schedule": asked.config.federation.schedule not in policy.schedules,
        "policy-model": not _models_are_allowed(policy, asked),
        "policy-module": not _module_is_allowed(policy, asked),
        kept_back: bool(kept_back),
        "policy-rank": asked.work == "train"
        and policy.max_rank > 0
        and bool(asked.config.beyond_rank(asked.components, policy.max_rank)),
        "policy-epsilon": asked.work == "train" and policy.max_epsilon > 0 and not asked.config.privacy.is_on,
        "policy-secure": policy.secure == "required" and asked.work in ("train", "validate") and not asked.is_masked,
        "policy-few-examples": asked.work == "train" and asked.train_questions < policy.min_examples,
        "policy-counts": not asked.config.federation.secure
        and not tells_counts(policy)
        and weighs_by_counts(asked.config.federation),
    }
    return next((code for code, is_broken in broken.items() if is_broken), "")


def refusal_of_work(policy: Policy, work: WorkKind, ledger: Ledger, now: datetime) -> str:
    """Return the code of the first rule that forbids to begin work now, or "".

    Args:
        policy: What the site allows.
        work: The kind of work.
        ledger: What the site did today, but for this.
        now: The time, in the site's time zone.
    """
    # One more than rounds: the models that a run begins with are measured, too.
    most = policy.rounds_a_day + (work != "train")
    broken = {
        "policy-measure": work != "train" and not policy.measure,
        "policy-rounds": policy.rounds_a_day > 0 and ledger.begun.get(work, 0) >= most,
        "policy-minutes": ledger.seconds >= seconds_a_day(policy),
        "policy-quiet-hours": is_quiet(policy, now),
    }
    return next((code for code, is_broken in broken.items() if is_broken), "")


def seconds_a_day(policy: Policy) -> float:
    """Return the seconds that a site works on one day at most; infinity where there is no limit."""
    return 60.0 * policy.minutes_a_day or math.inf


def is_too_large(policy: Policy, message_bytes: int) -> bool:
    """Return whether a whole message of this size may neither come in nor leave."""
    return message_bytes > policy.max_message_mb * MEGABYTE


def fewest_questions(site: Site, components: Sequence[Component], config: Config) -> int:
    """Return from how many questions, at most, that component learns which learns from the fewest.

    Those with the same text count once. A component that learns nothing has no update, and is not looked at.
    """
    distinct = replace(site, train=tuple(distinct_questions(site.train)))
    counts = question_counts(distinct, with_unanswered=config.iterates)
    asked = [SHIPPED[name] for name in components if name in SHIPPED]
    most = [min(counts[spec.learns_from(config)], spec.most_questions(counts, config)) for spec in asked]
    return min(filter(None, most), default=counts["train_questions"])


def is_quiet(policy: Policy, now: datetime) -> bool:
    """Return whether a time lies in the quiet hours; the minute in which they end is outside."""
    start, end = quiet_minutes(policy.quiet_hours)
    minute = 60 * now.hour + now.minute
    return start <= minute < end if start <= end else minute >= start or minute < end


def tells_counts(policy: Policy) -> bool:
    """Return whether numbers of questions may leave in the clear: never where updates may not."""
    return policy.tell_counts and policy.secure != "required"


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
    if not tells_counts(policy):
        counts = {name: min(count, 1) for name, count in counts.items()}
    return replace(greeting, counts=counts, policy=policy_numbers(policy) if policy.tell_policy else {})


def policy_numbers(policy: Policy) -> dict[str, float]:
    """Return the rules of a policy as numbers, by `greeting.POLICY_RULES`: no name of a model, no hash."""
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
        "max_epsilon": policy.max_epsilon,
        "max_rank": policy.max_rank,
        "tell_epsilon": policy.tell_epsilon,
        "measure": policy.measure,
        "secure": policy.secure == "required",
        "secure_min_sites": policy.secure_min_sites,
        "secure_colluding": policy.secure_colluding,
        "secure_repeats": policy.secure_repeats,
        "tell_counts": policy.tell_counts,
        "tell_diagnosis": policy.tell_diagnosis,
    }
    return {name: float(number) for name, number in numbers.items()}


def apply_to_reply(policy: Policy, reply: Reply, validation_questions: int = 1) -> Reply:
    """Return the reply that may leave, or a refusal instead.

    Args:
        policy: What the site allows.
        reply: What the step gave.
        validation_questions: Questions behind the sums of a validation; where it is not known, the fewest there can be.
    """
    # A difference of zeros holds nothing of any question: what taught nothing costs the other components nothing.
    if any(reply.questions.get(c, 0) < policy.min_examples and flat.any() for c, flat in reply.update.items()):
        return Reply(refusal="policy-few-examples")
    if policy.max_update_norm and not all(
        norm({component: flat}) <= policy.max_update_norm for component, flat in reply.update.items()
    ):  # written so that NaN is too large
        return Reply(refusal="policy-update-norm")
    told = reply.metrics if policy.tell_diagnosis else _without_diagnosis(reply.metrics)
    told = {name: value for name, value in told.items() if name != EPSILON or policy.tell_epsilon}
    metrics = {
        name: value
        for name, value in told.items()
        if name in NOT_FROM_QUESTIONS
        or _questions_behind(name, reply, validation_questions) >= policy.min_examples_for_metrics
    }
    if tells_counts(policy):
        return replace(reply, metrics=metrics)
    return replace(reply, num_examples=dict.fromkeys(reply.num_examples, 1), metrics=_without_counts(metrics))


def _questions_behind(metric: str, reply: Reply, validation_questions: int) -> int:
    """Return the fewest questions that a metric may have been computed from."""
    component, _, what = metric.partition(".")
    if component == DIAGNOSIS:
        return int(reply.metrics.get(f"{DIAGNOSIS}.questions", 0))
    if what in ("sum", "count"):
        # What counts anything but labelled questions, as the generator its tokens, says little of questions.
        counts_questions = component in SHIPPED and SHIPPED[component].validates_labelled
        return int(reply.metrics.get(f"{component}.count", 0)) if counts_questions else validation_questions
    questions = {str(name): count for name, count in reply.questions.items()}.get(component, 0)
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
