"""A request is accepted once: across restarts, torn lines, and clocks that jump; the memory of them is bounded."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrag.errors import StorageError
from fedrag.site.service.replay import REMEMBERED, REMEMBERED_S, ReplayGuard


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


def test_one_that_is_too_old_is_refused(tmp_path):
    assert not ReplayGuard(tmp_path / "requests.jsonl").accept("a", time.time() - REMEMBERED_S - 1)


def test_a_time_may_be_given_and_is_the_clocks_otherwise(tmp_path):
    guard = ReplayGuard(tmp_path / "requests.jsonl")
    assert not guard.refuses("a", 1000.0, now=1000.0)
    assert not guard.refuses("a", time.time())
    assert guard.refuses("a", 1000.0)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_clock_that_jumps_back_does_not_make_an_old_request_new(tmp_path, restarts):
    """It jumped ahead, the site forgot what it had accepted, and the clock was set right again."""
    path = tmp_path / "requests.jsonl"
    guard = ReplayGuard(path)
    assert guard.accept("a", 1000.0, now=1000.0)
    later = 1000.0 + REMEMBERED_S + 1
    assert guard.accept("b", later, now=later)
    if restarts:
        guard = ReplayGuard(path)
    assert guard.refuses("a", 1000.0, now=1000.0)
    assert not guard.accept("a", 1000.0, now=1000.0)


def test_a_start_under_a_wrong_clock_forgets_nothing(tmp_path, monkeypatch):
    path = tmp_path / "requests.jsonl"
    now = time.time()
    assert ReplayGuard(path).accept("a", now)
    with monkeypatch.context() as patch:
        patch.setattr("fedrag.site.service.replay.time.time", lambda: now + 10 * REMEMBERED_S)
        ReplayGuard(path)
    assert not ReplayGuard(path).accept("a", now)


def test_memory_and_file_are_bounded_and_what_was_forgotten_stays_refused(tmp_path):
    path = tmp_path / "requests.jsonl"
    guard = ReplayGuard(path, remembered=10)
    for number in range(100):
        assert guard.accept(f"r{number}", 1000.0 + number, now=1000.0)
        assert len(path.read_text().splitlines()) <= 22
    for reopened in (guard, ReplayGuard(path, remembered=10)):
        assert all(reopened.refuses(f"r{number}", 1000.0 + number, now=1000.0) for number in range(100))
        assert reopened.refuses("never seen", 1050.0, now=1000.0)
        assert not reopened.refuses("new", 1100.0, now=1000.0)


def test_as_many_are_remembered_as_a_site_is_asked_in_months(tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(json.dumps({f"r{number}": 1000.0 + number}) + "\n" for number in range(REMEMBERED + 5)))
    guard = ReplayGuard(path)
    assert not guard.refuses("new", 1005.0, now=1000.0)
    assert guard.refuses("new", 1004.0, now=1000.0)
    assert len(path.read_text().splitlines()) == REMEMBERED + 1


def test_a_line_that_could_not_be_written_whole_does_not_spoil_the_next(tmp_path, monkeypatch):
    """The disk is full: half a line is written, and the next request's line would be joined to it."""
    path = tmp_path / "requests.jsonl"
    guard = ReplayGuard(path)
    assert guard.accept("a", 1000.0, now=1000.0)

    def fails(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fedrag.site.service.replay.os.fsync", fails)
        with pytest.raises(StorageError, match="the disk is full"):
            guard.accept("b", 1001.0, now=1000.0)
    assert guard.accept("c", 1002.0, now=1000.0)
    assert [list(json.loads(line)) for line in path.read_text().splitlines()] == [["a"], ["c"]]


REQUESTS = st.tuples(st.sampled_from("abcdefgh"), st.floats(0, 1e6), st.floats(0, 1e6), st.booleans())


@settings(max_examples=40)
@given(st.lists(REQUESTS, max_size=30))
def test_no_request_is_ever_accepted_twice_whatever_the_clock_says(tmp_path_factory, requests):
    """Each: its id, when it was signed (the first time counts), the site's clock, whether the site starts anew."""
    path = tmp_path_factory.mktemp("site") / "requests.jsonl"
    guard, signed, accepted = ReplayGuard(path, remembered=3), {}, set()
    for request, when, now, restarts in requests:
        if restarts:
            guard = ReplayGuard(path, remembered=3)
        if guard.accept(request, signed.setdefault(request, when), now):
            assert request not in accepted
            accepted.add(request)
        assert not path.exists() or len(path.read_text().splitlines()) <= 8
