"""What a site's policy lets in and out."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from fedrag.config.scenario import Config
from fedrag.diagnosis.tally import COUNTS
from fedrag.federation.greeting import POLICY_RULES, Greeting
from fedrag.federation.messages import DIAGNOSIS_COUNTS, Reply, diagnosis_metrics, told_diagnosis
from fedrag.federation.refusal_codes import REFUSALS
from fedrag.site.policy import (
    RequestedWork,
    apply_to_greeting,
    apply_to_reply,
    fewest_questions,
    is_quiet,
    is_too_large,
    policy_numbers,
    refusal_of_request,
)
from fedrag.site.site_config import Policy
from fedrag.site.work_ledger import Ledger
from fedrag.types import ModelIdentity, Passage, Question, Site

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
HASHES = {"generator": "a" * 64, "retriever": "b" * 64}
MODELS = {"org/generator": "a" * 64, "org/retriever": "b" * 64}
BOTH = ("generator", "retriever")
REPLY = Reply(
    update={"generator": np.array([3.0, 4.0], np.float32), "retriever": np.array([1.0], np.float32)},
    num_examples={"generator": 40, "retriever": 12},
    metrics={
        "seconds": 7.5,
        "generator.loss": 2.0,
        "generator.last_loss": 1.5,
        "generator.steps": 40.0,
        "generator.tokens": 900.0,
        "generator.norm": 5.0,
        "retriever.loss": 0.5,
        "retriever.last_loss": 0.25,
        "retriever.steps": 2.0,
        "retriever.norm": 1.0,
    },
    questions={"generator": 40, "retriever": 12},
)
VALIDATION = Reply(
    metrics={"generator.sum": -30.0, "generator.count": 60.0, "retriever.sum": 3.0, "retriever.count": 4.0}
)


def config_of(*overrides):
    tree = ["models.generator=org/generator", "models.retriever=org/retriever", *overrides]
    return Config.from_toml('name = "a"\n[data]\nsites = "x"\n', overrides=tree)


def refusal(*overrides, policy=None, **changes):
    """Return the refusal of a request that the default policy grants."""
    request = {
        "components": BOTH,
        "config": config_of(*overrides),
        "base_hashes": HASHES,
        "train_questions": 10,
    }
    now, ledger = changes.pop("now", NOON), changes.pop("ledger", Ledger({"train": 3, "validate": 3}, 90.0 * 60.0))
    return refusal_of_request(Policy.model_validate(policy or {}), RequestedWork(**(request | changes)), ledger, now)


@pytest.mark.parametrize("schedule", ["generator", "retriever", "joint", "alternate", "staged"])
def test_the_default_policy_grants_what_the_federation_knows(schedule):
    assert refusal(f"federation.schedule={schedule}") == ""


def test_components_that_are_not_allowed_are_refused():
    assert refusal(policy={"components": ["retriever"]}) == "policy-component"
    assert refusal(components=("reranker",)) == "policy-component"
    assert refusal(policy={"components": ["retriever"]}, components=("retriever",)) == ""


def test_schedules_that_are_not_allowed_are_refused():
    assert refusal("federation.schedule=staged", policy={"schedules": ["joint"]}) == "policy-schedule"
    assert refusal("federation.schedule=joint", policy={"schedules": ["joint"]}) == ""


def test_a_base_model_must_have_the_listed_name_and_tensors():
    assert refusal(policy={"base_models": MODELS}) == ""
    assert refusal("models.generator=org/other", policy={"base_models": MODELS}) == "policy-model"
    altered = HASHES | {"retriever": "c" * 64}
    assert refusal(policy={"base_models": MODELS}, base_hashes=altered) == "policy-model"
    assert refusal(policy={"base_models": {"org/generator": "a" * 64}}) == "policy-model"


def test_a_base_model_whose_tensors_are_unknown_is_refused_where_models_are_listed():
    known = {"retriever": "b" * 64}
    assert refusal(policy={"base_models": MODELS}, base_hashes=known) == "policy-model"
    assert refusal(policy={"base_models": MODELS}, base_hashes=known, components=("retriever",)) == ""
    assert refusal(policy={"base_models": {"x": "a" * 64}}, base_hashes={}) == "policy-model"


def test_a_model_that_only_scores_must_be_listed_too():
    listed = {"org/retriever": "b" * 64}
    assert refusal(policy={"base_models": listed}, components=("retriever",)) == "policy-model"


@pytest.mark.parametrize(("limit", "code"), [(0, ""), (3, "policy-rounds"), (4, "")])
def test_rounds_a_day_are_counted(limit, code):
    assert refusal(policy={"rounds_a_day": limit}) == code


@pytest.mark.parametrize(("limit", "code"), [(0, ""), (89, "policy-minutes"), (90, "policy-minutes"), (91, "")])
def test_minutes_a_day_are_counted(limit, code):
    assert refusal(policy={"minutes_a_day": limit}) == code


@pytest.mark.parametrize(
    ("hours", "quiet"),
    [
        ("", []),
        ("08:00-18:00", [("08:00", True), ("17:59", True), ("07:59", False), ("18:00", False)]),
        ("22:30-06:00", [("22:30", True), ("00:00", True), ("05:59", True), ("06:00", False), ("22:29", False)]),
        ("00:00-06:00", [("00:00", True), ("06:00", False), ("23:59", False)]),
        ("18:00-00:00", [("18:00", True), ("23:59", True), ("00:00", False)]),
    ],
)
def test_quiet_hours_begin_and_end_at_their_minute(hours, quiet):
    policy = Policy(quiet_hours=hours)
    assert not is_quiet(Policy(), NOON)
    for time, expected in quiet:
        hour, minute = map(int, time.split(":"))
        assert is_quiet(policy, NOON.replace(hour=hour, minute=minute)) is expected


def test_in_quiet_hours_no_work_is_taken_on():
    assert refusal(policy={"quiet_hours": "11:00-13:00"}) == "policy-quiet-hours"
    assert refusal(policy={"quiet_hours": "11:00-13:00"}, now=NOON.replace(hour=14)) == ""


@pytest.mark.parametrize(("size", "is_refused"), [(1_500_000, False), (1_500_001, True)])
def test_messages_above_the_limit_are_too_large(size, is_refused):
    assert is_too_large(Policy(max_message_mb=1.5), size) is is_refused


@pytest.mark.parametrize(("limit", "code"), [(10, ""), (11, "policy-few-examples")])
def test_a_site_with_few_questions_takes_no_part(limit, code):
    assert refusal(policy={"min_examples": limit}) == code


def test_a_site_that_tells_no_counts_joins_only_where_all_weigh_the_same():
    assert refusal("federation.weighting=examples", policy={"tell_counts": False}) == "policy-counts"
    assert refusal("federation.weighting=equal", policy={"tell_counts": False}) == ""
    one = ("federation.weighting=equal", "federation.retriever.weighting=examples")
    assert refusal(*one, policy={"tell_counts": False}) == "policy-counts"


STRICT = {"rounds_a_day": 1, "minutes_a_day": 1, "quiet_hours": "11:00-13:00", "min_examples": 11}


def test_no_limit_on_work_concerns_a_delivery():
    assert refusal(policy=STRICT) == "policy-rounds"
    assert refusal(policy=STRICT, work=None, components=()) == ""
    assert refusal(policy=STRICT | {"base_models": {"x": "a" * 64}}, work=None, components=()) == "policy-model"


def test_a_round_of_training_that_names_no_component_is_work_all_the_same():
    """It once passed every limit, and the models of a site answered its questions for it."""
    assert refusal(policy=STRICT, components=()) == "policy-rounds"


@pytest.mark.parametrize("work", ["validate", "diagnose"])
def test_what_measures_is_no_training_but_is_work(work):
    assert refusal(policy={"min_examples": 11}, work=work) == ""
    assert refusal(policy={"minutes_a_day": 1}, work=work) == "policy-minutes"
    assert refusal(policy={"quiet_hours": "11:00-13:00"}, work=work) == "policy-quiet-hours"
    assert refusal(policy={"components": ["generator"]}, work=work) == "policy-component"
    assert refusal(policy={"measure": False}, work=work) == "policy-measure"
    assert refusal(policy={"measure": False}) == ""


@pytest.mark.parametrize(("limit", "code"), [(0, ""), (2, "policy-rounds"), (3, "")])
def test_measuring_is_counted_by_itself_and_once_more_than_rounds(limit, code):
    """The models that a run begins with are measured, too."""
    assert refusal(policy={"rounds_a_day": limit}, work="validate") == code
    assert refusal(policy={"rounds_a_day": limit}, work="diagnose") == ""


def test_every_refusal_has_a_meaning_for_the_coordinator():
    policies = [
        {"components": ["retriever"]},
        {"schedules": ["staged"]},
        {"base_models": {"x": "a" * 64}},
        {"rounds_a_day": 1},
        {"minutes_a_day": 1},
        {"quiet_hours": "11:00-13:00"},
        {"secure": "required"},
        {"min_examples": 99},
        {"tell_counts": False},
        {"max_epsilon": 8.0},
        {"max_rank": 1},
    ]
    codes = [refusal(policy=policy) for policy in policies] + [refusal("own.module=m", "own.rule=f")]
    assert len(set(codes)) == len(policies) + 1
    told = {code for code in REFUSALS if code.startswith("policy-")}
    of_replies = {apply_to_reply(Policy(max_update_norm=1.0), REPLY).refusal, "policy-message-size"}
    assert {*codes, *of_replies, refusal(policy={"measure": False}, work="validate")} == told


def test_the_default_policy_changes_no_reply_and_adds_its_rules_to_a_greeting():
    assert apply_to_reply(Policy(), REPLY) == REPLY
    assert apply_to_reply(Policy(), VALIDATION) == VALIDATION
    greeting = Greeting("clinic", "0.1.0", {"train_questions": 40}, {})
    assert apply_to_greeting(Policy(), greeting) == replace(greeting, policy=policy_numbers(Policy()))


@pytest.mark.parametrize(("limit", "refused"), [(0.0, ""), (5.0, ""), (4.99, "policy-update-norm")])
def test_an_update_above_the_norm_does_not_leave(limit, refused):
    left = apply_to_reply(Policy(max_update_norm=limit), REPLY)
    assert left == (Reply(refusal=refused) if refused else REPLY)


def test_the_norm_is_of_each_component_by_itself():
    update = {"generator": np.array([4.0], np.float32), "retriever": np.array([4.0], np.float32)}
    reply = Reply(update, {"generator": 1, "retriever": 1}, questions={"generator": 1, "retriever": 1})
    assert apply_to_reply(Policy(max_update_norm=4.0), reply).refusal == ""


@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38])
def test_an_update_whose_norm_is_no_small_number_does_not_leave(value):
    """3e38 squared is infinite in float32."""
    reply = Reply({"generator": np.array([value], np.float32)}, {"generator": 1}, questions={"generator": 1})
    assert apply_to_reply(Policy(max_update_norm=1e30), reply).refusal == "policy-update-norm"
    bare = Reply(dict(reply.update), questions=reply.questions)
    refused = apply_to_reply(Policy(max_update_norm=1e39), bare).refusal
    assert refused == ("" if value == 3e38 else "policy-update-norm")


def test_a_refusal_leaves_as_it_is():
    refused = Reply(refusal="deadline", error_id="0123abcd")
    assert apply_to_reply(Policy(tell_counts=False, max_update_norm=1.0), refused) == refused


def test_numbers_from_few_questions_are_not_told():
    left = apply_to_reply(Policy(min_examples_for_metrics=13), REPLY)
    assert set(left.metrics) == {
        "seconds",
        "generator.loss",
        "generator.steps",
        "generator.tokens",
        "generator.norm",
    }
    assert (left.update, left.num_examples) == (REPLY.update, REPLY.num_examples)
    assert set(apply_to_reply(Policy(min_examples_for_metrics=41), REPLY).metrics) == {"seconds"}


def test_temperatures_are_told_whatever_the_number_of_questions():
    """They are found without a text of the site."""
    reply = replace(REPLY, metrics={"retriever.scale": 20.0, "retriever.tau_r": 0.05, "retriever.loss": 1.0})
    left = apply_to_reply(Policy(min_examples_for_metrics=41, tell_counts=False), reply)
    assert left.metrics == {"retriever.scale": 20.0, "retriever.tau_r": 0.05}


def test_the_distinct_questions_behind_an_update_and_not_its_weight_are_what_counts():
    """A component may count a question twice, or questions that taught nothing."""
    reply = replace(REPLY, questions={"generator": 10, "retriever": 10})
    assert set(apply_to_reply(Policy(min_examples_for_metrics=11), reply).metrics) == {"seconds"}


@pytest.mark.parametrize(("limit", "code"), [(12, ""), (13, "policy-few-examples")])
def test_an_update_from_few_questions_does_not_leave(limit, code):
    left = apply_to_reply(Policy(min_examples=limit), REPLY)
    assert left == (Reply(refusal=code) if code else REPLY)


def test_an_update_of_which_nobody_says_how_many_questions_it_comes_from_does_not_leave():
    assert apply_to_reply(Policy(), replace(REPLY, questions={})).refusal == "policy-few-examples"


def test_the_last_loss_may_come_from_one_question_of_the_last_step():
    """40 steps on 40 questions: the last tenth is four steps of one question."""
    told = {limit: set(apply_to_reply(Policy(min_examples_for_metrics=limit), REPLY).metrics) for limit in (1, 2, 4, 5)}
    assert "retriever.last_loss" in told[1]
    assert "retriever.last_loss" not in told[2]
    assert "retriever.loss" in told[2]
    assert "generator.last_loss" in told[4]
    assert "generator.last_loss" not in told[5]


def test_of_a_validation_labelled_questions_and_not_tokens_are_what_counts():
    policy = Policy(min_examples_for_metrics=4)
    retriever = {name: value for name, value in VALIDATION.metrics.items() if name.startswith("retriever")}
    assert apply_to_reply(policy, VALIDATION, 3).metrics == retriever
    assert apply_to_reply(policy, VALIDATION, 4).metrics == VALIDATION.metrics
    assert apply_to_reply(Policy(min_examples_for_metrics=5), VALIDATION, 4).metrics == {}


def test_a_sum_whose_count_is_missing_stands_for_no_question():
    reply = Reply(metrics={"retriever.sum": 3.0})
    assert apply_to_reply(Policy(min_examples_for_metrics=1), reply, 4).metrics == {}


def test_a_metric_of_a_component_that_counted_nothing_stands_for_no_question():
    reply = Reply(metrics={"generator.loss": 2.0, "generator.last_loss": 2.0}, questions={"retriever": 12})
    assert apply_to_reply(Policy(min_examples_for_metrics=1), reply).metrics == {}


def test_a_last_loss_whose_steps_are_missing_counts_as_the_last_of_one():
    reply = Reply(metrics={"generator.last_loss": 2.0}, questions={"generator": 12})
    assert apply_to_reply(Policy(min_examples_for_metrics=1), reply).metrics == reply.metrics
    assert apply_to_reply(Policy(min_examples_for_metrics=2), reply).metrics == {}


def test_where_the_number_of_validation_questions_is_unknown_a_policy_takes_it_for_one():
    assert "generator.sum" in apply_to_reply(Policy(), VALIDATION).metrics
    assert "generator.sum" not in apply_to_reply(Policy(min_examples_for_metrics=2), VALIDATION).metrics


def test_a_delivery_is_confirmed_under_any_policy():
    reply = Reply(metrics={"delivered": 2})
    assert apply_to_reply(Policy(min_examples_for_metrics=1000, tell_counts=False), reply, 0) == reply


def test_counts_that_are_not_told_leave_as_one_and_what_gives_them_away_is_left_out():
    left = apply_to_reply(Policy(tell_counts=False), REPLY)
    assert left.num_examples == {"generator": 1, "retriever": 1}
    assert left.update == REPLY.update
    assert set(left.metrics) == {
        "seconds",
        *(f"{component}.{what}" for component in BOTH for what in ("loss", "last_loss", "norm")),
    }


def test_a_validation_without_counts_is_a_mean_that_counts_once():
    left = apply_to_reply(Policy(tell_counts=False), VALIDATION)
    assert left.metrics == {
        "generator.sum": -0.5,
        "generator.count": 1.0,
        "retriever.sum": 0.75,
        "retriever.count": 1.0,
    }


def test_a_greeting_without_counts_tells_whether_there_are_questions():
    counts = {"train_questions": 40, "labelled_questions": 0, "validation_questions": 1}
    models = {"retriever": ModelIdentity("b" * 64)}
    left = apply_to_greeting(Policy(tell_counts=False), Greeting("clinic", "0.1.0", counts, models))
    assert left.counts == {"train_questions": 1, "labelled_questions": 0, "validation_questions": 1}
    assert (left.name, left.version, left.models) == ("clinic", "0.1.0", models)


def test_a_site_that_keeps_its_rules_to_itself_greets_without_them():
    greeting = Greeting("clinic", "0.1.0", {"train_questions": 40}, {})
    assert apply_to_greeting(Policy(tell_policy=False, rounds_a_day=3), greeting) == greeting
    left = apply_to_greeting(Policy(tell_policy=False, tell_counts=False), greeting)
    assert (left.counts, left.policy) == ({"train_questions": 1}, {})


def test_the_rules_are_told_as_numbers():
    policy = Policy(
        components=("retriever",),
        schedules=("retriever", "joint"),
        base_models=MODELS,
        rounds_a_day=10,
        minutes_a_day=120,
        quiet_hours="22:30-06:00",
        max_message_mb=1.5,
        max_update_norm=10.0,
        min_examples=50,
        min_examples_for_metrics=20,
        max_epsilon=8.0,
        max_rank=4,
        tell_epsilon=True,
        tell_counts=False,
        tell_diagnosis=True,
    )
    numbers = policy_numbers(policy)
    assert numbers == {
        "components.generator": 0.0,
        "components.retriever": 1.0,
        "schedules.generator": 0.0,
        "schedules.retriever": 1.0,
        "schedules.joint": 1.0,
        "schedules.alternate": 0.0,
        "schedules.staged": 0.0,
        "schedules.iterate": 0.0,
        "base_models": 2.0,
        "own_modules": 0.0,
        "rounds_a_day": 10.0,
        "minutes_a_day": 120.0,
        "quiet_hours.from": 1350.0,
        "quiet_hours.until": 360.0,
        "max_message_mb": 1.5,
        "max_update_norm": 10.0,
        "max_epsilon": 8.0,
        "max_rank": 4.0,
        "tell_epsilon": 1.0,
        "min_examples": 50.0,
        "min_examples_for_metrics": 20.0,
        "measure": 1.0,
        "secure": 0.0,
        "secure_min_sites": 3.0,
        "secure_colluding": 1.0,
        "secure_repeats": 1.0,
        "tell_counts": 0.0,
        "tell_diagnosis": 1.0,
    }
    assert {type(number) for number in numbers.values()} == {float}


def test_a_policy_without_quiet_hours_tells_two_zeros():
    numbers = policy_numbers(Policy())
    assert (numbers["quiet_hours.from"], numbers["quiet_hours.until"]) == (0.0, 0.0)


@pytest.mark.parametrize("policy", [Policy(), Policy(base_models=MODELS, quiet_hours="08:00-18:00")])
def test_what_is_told_of_any_policy_is_what_the_coordinator_reads(policy):
    assert tuple(policy_numbers(policy)) == POLICY_RULES


def test_every_setting_of_a_policy_is_told():
    told = {name.partition(".")[0] for name in POLICY_RULES}
    assert told | {"tell_policy", "adopt"} == set(Policy.model_fields)  # what it does with models is the site's affair


def diagnosis(questions=40.0, **counts):
    return diagnosis_metrics(dict.fromkeys(DIAGNOSIS_COUNTS, 0.0) | {"questions": questions, **counts})


def test_why_answers_are_wrong_is_told_by_a_site_that_says_so_and_by_no_other():
    reply = Reply(metrics=diagnosis(right=10.0, cut=30.0) | {"seconds": 2.0})
    assert apply_to_reply(Policy(), reply).metrics == {"seconds": 2.0}
    assert apply_to_reply(Policy(tell_diagnosis=True), reply) == reply


def test_counts_of_causes_leave_only_if_enough_questions_are_behind_them():
    few = Policy(tell_diagnosis=True, min_examples_for_metrics=40)
    assert apply_to_reply(few, Reply(metrics=diagnosis(39.0))).metrics == {}
    assert apply_to_reply(few, Reply(metrics=diagnosis(40.0))).metrics == diagnosis(40.0)


def test_a_site_that_tells_no_counts_tells_shares_of_one_question():
    policy = Policy(tell_diagnosis=True, tell_counts=False)
    told = apply_to_reply(policy, Reply(metrics=diagnosis(40.0, right=10.0, cut=30.0))).metrics
    assert told == diagnosis(1.0, right=0.25, cut=0.75)


def test_the_server_reads_whole_counts_and_nothing_else():
    assert tuple(DIAGNOSIS_COUNTS) == COUNTS
    whole = diagnosis(40.0, right=10.0)
    assert told_diagnosis(whole)["right"] == 10.0
    assert told_diagnosis({**whole, "diagnosis.right": 41.0}) == {}
    assert told_diagnosis({name: value for name, value in whole.items() if name != "diagnosis.near"}) == {}
    assert told_diagnosis({}) == told_diagnosis(diagnosis(0.0)) == {}


def test_of_a_component_of_ones_own_the_mean_alone_leaves_where_counts_are_not_told():
    reply = Reply(metrics={"reranker.sum": 6.0, "reranker.count": 4.0, "reranker.steps": 20.0, "seconds": 1.0})
    left = apply_to_reply(Policy(tell_counts=False), reply)
    assert left.metrics == {"reranker.sum": 1.5, "reranker.count": 1.0, "seconds": 1.0}


def test_what_a_component_of_ones_own_counts_says_nothing_of_the_questions_behind_it():
    reply = Reply(metrics={"reranker.sum": 6.0, "reranker.count": 400.0})
    assert apply_to_reply(Policy(min_examples_for_metrics=5), reply, 4).metrics == {}
    assert apply_to_reply(Policy(min_examples_for_metrics=5), reply, 5).metrics == reply.metrics


@pytest.mark.parametrize(
    ("components", "loss", "fewest"),
    [
        (("generator",), "contrastive", 2),
        (("retriever",), "contrastive", 4),
        (("retriever",), "lsr", 2),
        (("retriever",), "both", 5),
        (BOTH, "contrastive", 2),
        (("reranker",), "contrastive", 5),
    ],
)
def test_a_site_with_few_answers_has_few_examples_for_what_learns_from_them(components, loss, fewest):
    """Questions without an answer once let a generator train on fewer than a site allows."""
    pairs = tuple(Question(f"q{n}", f"{n}?", (), ("p",)) for n in range(3))
    answered = (Question("a1", "A?", ("x",), ("p",)), Question("a2", "B?", ("x",)))
    site = Site("a", (Passage("p", "x"),), (*pairs, *answered))
    assert fewest_questions(site, components, config_of(f"retriever.loss={loss}")) == fewest


def asked_with_module(own_sha256: str) -> RequestedWork:
    tree = {"name": "t", "data": {"sites": "."}, "own": {"module": "hospital_rules", "answer": "half"}}
    return RequestedWork(Config.from_dict(tree), (), {}, 40, 0, own_sha256=own_sha256)


@pytest.mark.parametrize(
    ("allowed", "installed", "code"),
    [
        ({}, "", "policy-module"),
        ({}, "c" * 64, "policy-module"),
        ({"hospital_rules": "c" * 64}, "", "policy-module"),
        ({"hospital_rules": "c" * 64}, "d" * 64, "policy-module"),
        ({"other": "c" * 64}, "c" * 64, "policy-module"),
        ({"hospital_rules": "c" * 64}, "c" * 64, ""),
    ],
)
def test_a_module_is_allowed_by_name_and_source_alone(allowed: dict[str, str], installed: str, code: str):
    assert refusal_of_request(Policy(own_modules=allowed), asked_with_module(installed), Ledger(), NOON) == code
    assert code == "" or code in REFUSALS
