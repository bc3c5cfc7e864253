"""What a site told of its policy, in words."""

from __future__ import annotations

import pytest
from written_run import new_folder, record, write_run

from fedrag.coordinator.overview import site_rows
from fedrag.coordinator.policy_text import USUAL_MESSAGE_MB, policy_phrases
from fedrag.site.policy import policy_numbers
from fedrag.site.site_config import Policy


def phrases(**rules):
    return policy_phrases(policy_numbers(Policy.model_validate(rules)))


def test_a_new_site_allows_everything():
    assert phrases() == ["allows everything"]
    assert phrases(max_message_mb=USUAL_MESSAGE_MB + 1) == ["allows everything"]


def test_of_a_site_that_tells_nothing_nothing_is_said():
    assert policy_phrases({}) == []


@pytest.mark.parametrize(
    ("rules", "phrase"),
    [
        ({"components": ["generator"]}, "generator only"),
        ({"components": ["retriever"]}, "retriever only"),
        ({"schedules": ["alternate", "joint"]}, "schedules: joint, alternate"),
        ({"base_models": {"a/b": "0" * 64}}, "only 1 named model"),
        ({"base_models": {"a/b": "0" * 64, "c/d": "1" * 64}}, "only 2 named models"),
        ({"rounds_a_day": 1}, "at most 1 round a day"),
        ({"rounds_a_day": 10}, "at most 10 rounds a day"),
        ({"minutes_a_day": 1200}, "at most 1,200 minutes a day"),
        ({"max_rank": 4}, "adapters up to rank 4"),
        ({"measure": False}, "measures nothing"),
        ({"quiet_hours": "08:00-18:00"}, "no work 08:00-18:00 (its time)"),
        ({"quiet_hours": "22:30-00:00"}, "no work 22:30-00:00 (its time)"),
        ({"max_message_mb": 200.0}, "messages up to 200 MB"),
        ({"max_message_mb": 0.5}, "messages up to 0.5 MB"),
        ({"max_update_norm": 10.0}, "updates up to norm 10"),
        ({"min_examples": 50}, "updates only from 50 questions on"),
        ({"min_examples_for_metrics": 20}, "numbers only from 20 questions on"),
        ({"tell_counts": False}, "counts are not told"),
    ],
)
def test_a_rule_that_restricts_is_one_phrase(rules, phrase):
    assert phrases(**rules) == [phrase]


def test_what_may_be_trained_and_when_comes_before_what_comes_in_and_goes_out():
    told = phrases(tell_counts=False, quiet_hours="08:00-18:00", components=["generator"], max_message_mb=200.0)
    assert told == ["generator only", "no work 08:00-18:00 (its time)", "messages up to 200 MB", "counts are not told"]


def test_numbers_that_no_fedrag_would_send_are_short_phrases_too():
    assert policy_phrases({"rounds_a_day": 1e300, "quiet_hours.until": 1e300}) == [
        "at most 1e+300 rounds a day",
        "no work 00:00-00:00 (its time)",
    ]
    assert policy_phrases({"components.generator": 0.0, "components.retriever": 0.0}) == ["no component"]
    assert policy_phrases(dict.fromkeys(policy_numbers(Policy()), 0.0))[1] == "schedules: none"


def told(**rules):
    return {"version": "0.1.0", "counts": {"train_questions": 4}, "policy": policy_numbers(Policy(**rules))}


def test_the_rows_of_sites_hold_what_each_told_in_its_last_greeting(tmp_path):
    folder = new_folder(tmp_path, ("east", "north", "south", "west"))
    write_run(folder, [record(1)]).record_sites({"east": told(), "north": told(), "south": told()})
    silent = told() | {"policy": {}}
    write_run(folder, [record(1)]).record_sites({"north": told(rounds_a_day=3), "south": silent})
    assert {row["name"]: row["policy"] for row in site_rows(folder)} == {
        "east": ["allows everything"],
        "north": ["at most 3 rounds a day"],
        "south": [],
        "west": [],
    }


def test_a_run_that_was_written_before_sites_told_their_policy_is_still_read(tmp_path):
    folder = new_folder(tmp_path)
    write_run(folder, [record(1)]).record_sites({"north": {"version": "0.1.0", "counts": {"train_questions": 4}}})
    assert [(row["version"], row["questions"], row["policy"]) for row in site_rows(folder)] == [
        ("0.1.0", 4, []),
        ("", "", []),
    ]
