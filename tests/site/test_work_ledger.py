"""The ledger of a site's work, on disk."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from fedrag.errors import StorageError
from fedrag.site.work_ledger import LEDGER_FILE, Ledger, WorkLedger

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> WorkLedger:
    return WorkLedger(tmp_path / LEDGER_FILE)


def test_a_new_site_did_nothing(ledger):
    assert ledger.of(NOON) == Ledger({}, 0.0)


def test_no_more_is_paid_for_than_a_day_has_whoever_pays(ledger, tmp_path):
    """The node and what measures deliveries pay from one day."""

    def pay(_: int) -> float:
        return WorkLedger(tmp_path / LEDGER_FILE).pay(10.0, NOON, 60.0)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(pay, range(12))) == 60.0
    assert ledger.of(NOON).seconds == 60.0


def test_what_was_not_worked_is_given_back_and_a_day_owes_nothing(ledger):
    ledger.pay(10.0, NOON, 60.0)
    ledger.charge(-4.0, NOON.date())
    assert ledger.of(NOON).seconds == 6.0
    ledger.charge(-10.0, NOON.date())
    assert ledger.of(NOON).seconds == 0.0


def test_the_day_is_that_of_the_site_s_own_clock(ledger):
    late = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
    ledger.pay(60.0, late.astimezone(timezone(timedelta(hours=1))), 60.0)
    assert ledger.of(NOON).seconds == 60.0
    assert ledger.of(late).seconds == 0.0


def test_a_request_that_is_begun_again_counts_once_and_not_against_itself(ledger):
    for request in ("a", "b", "b"):
        ledger.begin("train", request, NOON)
    ledger.begin("validate", "c", NOON)
    assert ledger.of(NOON).begun == {"train": 2, "validate": 1}
    assert ledger.of(NOON, "b").begun == {"train": 1, "validate": 1}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"days": {}}', '{"days": 1, "latest": {}}'])
def test_a_ledger_that_cannot_be_read_is_named_and_nothing_is_paid_for(ledger, tmp_path, text):
    (tmp_path / LEDGER_FILE).write_text(text)
    for ask in (lambda: ledger.of(NOON), lambda: ledger.pay(1.0, NOON, 60.0)):
        with pytest.raises(StorageError, match=r"ledger\.json: cannot be read \(\w+\); remove it"):
            ask()
    assert (tmp_path / LEDGER_FILE).read_text() == text


def test_old_days_are_forgotten(ledger, tmp_path):
    for day in range(60):
        ledger.charge(1.0, (NOON + timedelta(days=day)).date())
    days = json.loads((tmp_path / LEDGER_FILE).read_text())["days"]
    assert len(days) == 40
    assert max(days) == "2026-04-30"
