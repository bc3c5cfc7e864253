"""Whatever is asked, whenever, and however work ends: a site never works past what its policy allows."""

from __future__ import annotations

import tempfile
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fedrag.federation.signing import new_request_id
from fedrag.site.policy import is_quiet, refusal_of_work
from fedrag.site.site_config import Policy
from fedrag.site.work_ledger import LEDGER_FILE, Clock, WorkKind, WorkLedger
from fedrag.site.work_meter import CHECK_S, PAID_S, PolicyEndsWork, WorkMeter

EVENING = datetime(2026, 3, 2, 21, 0, tzinfo=UTC)
KINDS = st.sampled_from(get_args(WorkKind))


class Site(RuleBasedStateMachine):
    """A site with a ledger on disk, and beside it what it really did, by the day of its clock."""

    @initialize(
        rounds=st.integers(0, 3),
        minutes=st.integers(0, 2),
        quiet=st.sampled_from(["", "21:01-06:00", "21:02-21:03"]),
        measure=st.booleans(),
    )
    def begin(self, rounds: int, minutes: int, quiet: str, measure: bool) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.policy = Policy(rounds_a_day=rounds, minutes_a_day=minutes, quiet_hours=quiet, measure=measure)
        self.now, self.seconds = EVENING, 0.0
        self.worked: Counter[date] = Counter()
        self.begun: Counter[tuple[date, WorkKind]] = Counter()
        self.request = ""
        self.start()

    def start(self) -> None:
        """Start, again: nothing is known but what lies on the disk."""
        clock = Clock(lambda: self.now, lambda: self.seconds)
        self.ledger = WorkLedger(Path(self.folder.name) / LEDGER_FILE)
        self.meter = WorkMeter(self.policy, self.ledger, clock)

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds

    def work(self, kind: WorkKind, seconds: int, crashes: bool, step: float) -> bool:
        """Do what the site does with a request; return whether it was allowed."""
        if refusal_of_work(self.policy, kind, self.ledger.of(self.now, self.request), self.now):
            return False
        assert kind == "train" or self.policy.measure
        self.ledger.begin(kind, self.request, self.now)
        self.meter.begin()
        try:
            for _ in range(seconds):
                self.meter.check()
                assert not is_quiet(self.policy, self.now)
                self.worked[self.now.date()] += step
                self.pass_time(step)
        except PolicyEndsWork:
            crashes = False
        if crashes:
            self.start()
        else:
            self.meter.end()
        return True

    @rule(kind=KINDS, seconds=st.integers(0, 150), crashes=st.booleans(), step=st.sampled_from([CHECK_S, CHECK_S / 3]))
    def ask(self, kind: WorkKind, seconds: int, crashes: bool, step: float) -> None:
        self.request = new_request_id()
        day = self.now.date()
        self.begun[day, kind] += self.work(kind, seconds, crashes, step)

    @rule(kind=KINDS, seconds=st.integers(0, 150))
    def go_on_after_a_crash(self, kind: WorkKind, seconds: int) -> None:
        """The request that was worked on last is worked on again, and counts once, on the day on which it began."""
        self.start()
        if self.ledger.of(self.now).begun.get(kind, 0) > self.ledger.of(self.now, self.request).begun.get(kind, 0):
            self.work(kind, seconds, False, CHECK_S)

    @rule()
    def restart(self) -> None:
        self.start()

    @rule(seconds=st.integers(0, 100) | st.integers(0, 4 * 3600))
    def wait(self, seconds: int) -> None:
        self.pass_time(seconds)

    @rule(hours=st.integers(-30, 30))
    def set_the_clock(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @invariant()
    def no_day_has_more_work_than_its_minutes(self) -> None:
        for day, seconds in getattr(self, "worked", {}).items():
            paid = self.ledger.of(datetime(day.year, day.month, day.day, tzinfo=UTC)).seconds
            # Midnight may come within one step.
            assert seconds <= paid + CHECK_S
            assert not self.policy.minutes_a_day or seconds <= 60 * self.policy.minutes_a_day + CHECK_S

    @invariant()
    def no_day_has_more_rounds_than_it_may(self) -> None:
        for (_, kind), count in getattr(self, "begun", {}).items():
            assert not self.policy.rounds_a_day or count <= self.policy.rounds_a_day + (kind != "train")

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestSite = Site.TestCase
TestSite.settings = settings(max_examples=60, stateful_step_count=25)


def test_a_crash_costs_no_more_than_what_was_paid_for(tmp_path: Path) -> None:
    seconds = [0.0]
    ledger = WorkLedger(tmp_path / LEDGER_FILE)
    meter = WorkMeter(Policy(), ledger, Clock(lambda: EVENING, lambda: seconds[0]))
    meter.begin()
    for _ in range(25):
        meter.check()
        seconds[0] += 1.0
    assert 25.0 <= WorkLedger(tmp_path / LEDGER_FILE).of(EVENING).seconds <= 25.0 + PAID_S
    meter.end()
    assert WorkLedger(tmp_path / LEDGER_FILE).of(EVENING).seconds == 25.0
