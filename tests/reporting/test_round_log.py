"""What the log of the rounds comes to."""

from __future__ import annotations

from fedrag.reporting.round_log import (
    Failure,
    SiteTotals,
    curve,
    failures,
    left_out,
    mean_curve,
    site_losses,
    site_totals,
)

RECORDS = [
    {
        "round": 1,
        "asked": ["a", "b"],
        "bytes_to_each_site": 100,
        "sites": {
            "a": {"generator.loss": 2.0, "generator.examples": 4, "seconds": 1.5, "bytes": 30},
            "b": {"generator.loss": 4.0, "generator.examples": 6, "seconds": 2.5, "bytes": 30},
        },
        "left_out": {},
        "validation": {},
    },
    {
        "round": 2,
        "asked": ["a", "b"],
        "bytes_to_each_site": 100,
        "sites": {"a": {"generator.loss": 1.0, "generator.examples": 4, "seconds": 1.5, "bytes": 20}},
        "left_out": {"b": "out-of-memory (4711)"},
        "validation": {"generator": -0.5},
    },
]


def test_a_site_that_was_left_out_still_received():
    assert site_totals(RECORDS) == {"a": SiteTotals(2, 2, 4, 3.0, 200, 50), "b": SiteTotals(2, 1, 6, 2.5, 200, 30)}


def test_curves_hold_the_rounds_in_which_a_site_took_part():
    losses = site_losses(RECORDS, "generator")
    assert losses == {"a": [(1, 2.0), (2, 1.0)], "b": [(1, 4.0)]}
    assert mean_curve(losses) == [(1, 3.0), (2, 1.0)]
    assert site_losses(RECORDS, "retriever") == {}
    assert curve(RECORDS, "validation", "generator") == [(2, -0.5)]


def test_replies_that_were_left_out_are_named_by_site_and_reason_without_the_ids_of_errors():
    assert left_out(RECORDS) == ["b: out-of-memory (4711): round 2"]
    reasons = [f"its disk is full (no-disk-space; error 0000000{n} in the site's log)" for n in (1, 2)]
    records = [{"round": n, "left_out": {"b": reason, "a": "no reply"}} for n, reason in enumerate(reasons, start=4)]
    assert left_out(records) == ["a: no reply: rounds 4, 5", "b: its disk is full (no-disk-space): rounds 4, 5"]


def test_failures_are_added_up_by_site_and_reason_and_keep_the_last_id_of_an_error():
    reasons = [f"its disk is full (no-disk-space; error 0000000{n} in the site's log)" for n in (1, 2)]
    records = [
        {"round": 1, "left_out": {"b": reasons[0]}},
        {"round": 2, "left_out": {"b": "no reply within 60 s", "a": reasons[0]}},
        {"round": 3, "left_out": {"b": reasons[1]}},
    ]
    assert failures(records) == [
        Failure("a", reasons[0], (2,)),
        Failure("b", reasons[1], (1, 3)),
        Failure("b", "no reply within 60 s", (2,)),
    ]
