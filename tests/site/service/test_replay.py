"""A request is accepted once, across restarts and torn lines, and old ones are forgotten."""

from __future__ import annotations

import json
import time

from fedrag.site.service.replay import REMEMBERED_S, ReplayGuard


def test_a_request_is_new_once(tmp_path):
    guard = ReplayGuard(tmp_path / "requests.jsonl")
    now = time.time()
    assert [guard.accept("a", now), guard.accept("a", now), guard.accept("b", now)] == [True, False, True]


def test_it_is_remembered_over_a_restart_and_a_line_that_a_crash_cut_off(tmp_path):
    path = tmp_path / "requests.jsonl"
    ReplayGuard(path).accept("a", time.time())
    with path.open("a") as file:
        file.write('{"b": 17')
    reopened = ReplayGuard(path)
    assert not reopened.accept("a", time.time())
    assert reopened.accept("b", time.time())
    assert not ReplayGuard(path).accept("b", time.time())


def test_one_that_is_too_old_to_be_remembered_is_refused(tmp_path):
    assert not ReplayGuard(tmp_path / "requests.jsonl").accept("a", time.time() - REMEMBERED_S - 1)


def test_the_file_does_not_grow_for_ever(tmp_path):
    path = tmp_path / "requests.jsonl"
    old = "".join(json.dumps({str(i): time.time() - REMEMBERED_S - 10}) + "\n" for i in range(50))
    path.write_text(old + json.dumps({"new": time.time()}) + "\n")
    guard = ReplayGuard(path)
    assert len(path.read_text().splitlines()) == 1
    assert not guard.accept("new", time.time())


def test_a_time_may_be_given_and_is_the_clocks_otherwise(tmp_path):
    guard = ReplayGuard(tmp_path / "requests.jsonl")
    assert not guard.refuses("a", 1000.0, now=1000.0)
    assert not guard.refuses("a", time.time())
    assert guard.refuses("a", 1000.0)


def test_a_request_is_refused_from_the_moment_on_at_which_it_may_be_forgotten(tmp_path):
    guard = ReplayGuard(tmp_path / "requests.jsonl")
    assert not guard.refuses("a", 1000.0, now=1000.0 + REMEMBERED_S - 1)
    assert guard.refuses("a", 1000.0, now=1000.0 + REMEMBERED_S + 1)


def test_a_request_that_is_refused_for_its_age_is_forgotten_while_the_site_runs(tmp_path):
    guard = ReplayGuard(tmp_path / "requests.jsonl")
    assert guard.accept("a", 1000.0, now=1000.0)
    later = 1000.0 + REMEMBERED_S + 1
    assert guard.refuses("a", later, now=later)
    assert guard.accept("b", later, now=later)
    assert not guard.refuses("a", later, now=later)
    assert guard.refuses("b", later, now=later)


def test_a_request_of_the_oldest_age_that_is_accepted_is_remembered(tmp_path):
    guard = ReplayGuard(tmp_path / "requests.jsonl")
    now = 1000.0 + REMEMBERED_S
    assert guard.accept("a", 1000.0, now=now)
    assert guard.accept("b", now, now=now)
    assert guard.refuses("a", 1000.0, now=now)
