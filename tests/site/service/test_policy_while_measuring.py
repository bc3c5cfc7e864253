"""What a site measures unasked is bound by its policy, as work that a coordinator asks is."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from clinic import make_clinic, set_setting, trained_run

from fedrag.runs.run_folder import RunFolder
from fedrag.site.delivery import current_delivery, deliveries, save_delivery
from fedrag.site.service.self_evaluation import SelfEvaluation
from fedrag.site.site_config import SiteConfig
from fedrag.site.work_ledger import LEDGER_FILE, Clock, WorkLedger

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def run(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained_run(tmp_path_factory.mktemp("home") / "run")


@pytest.fixture
def clinic(run: RunFolder, tmp_path: Path) -> Path:
    """A site to which models of three runs were delivered, and wait."""
    folder = make_clinic(tmp_path)
    for name in ("tiny-1", "tiny-2", "tiny-3"):
        save_delivery(folder, name, run.load_result(), run.config.to_toml(), adopts=False)
    return folder


class Site:
    """A site that measures, by a clock that a test sets."""

    def __init__(self, clinic: Path) -> None:
        self.now, self.seconds = NOON, 0.0
        self.said: list[str] = []
        clock = Clock(lambda: self.now, lambda: self.seconds)
        self.service = SelfEvaluation(clinic, SiteConfig.from_file(clinic / "site.toml"), idle_s=0.0, clock=clock)

    def tend(self, is_done: Callable[[], bool], timeout_s: float = 120.0) -> None:
        end = time.monotonic() + timeout_s
        while not is_done():
            self.service.tend(self.said.append)
            assert time.monotonic() < end, self.said
            time.sleep(0.02)

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [
        ("quiet_hours", '"12:01-13:00"', "its policy does not allow work at this time of day"),
        ("minutes_a_day", "1", "its policy does not allow more work today"),
    ],
)
def test_measuring_that_runs_is_ended_at_the_limit_and_no_other_begins(clinic, setting, value, why):
    set_setting(clinic, setting, value)
    site = Site(clinic)
    site.tend(lambda: bool(site.said))
    pid = site.service._trial.pid
    for _ in range(61):
        site.pass_time(1.0)
        site.service.tend(site.said.append)
    what = "measuring tiny-1 on this site's own validation questions"
    assert site.said == [what, f"{what} was ended: {why}"]
    assert not Path(f"/proc/{pid}").exists()
    assert 59.0 <= WorkLedger(clinic / LEDGER_FILE).of(NOON).seconds <= 61.0
    end = time.monotonic() + 0.3
    site.tend(lambda: time.monotonic() > end)
    assert len(site.said) == 2
    assert all(delivery.is_to_be_judged for delivery in deliveries(clinic))


def test_a_site_that_does_not_measure_lets_all_deliveries_wait_for_a_person(clinic):
    set_setting(clinic, "measure", "false")
    site = Site(clinic)
    site.tend(lambda: not any(delivery.is_to_be_judged for delivery in deliveries(clinic)))
    assert site.said == []
    assert current_delivery(deliveries(clinic)) is None
    assert {delivery.verdict["why"] for delivery in deliveries(clinic)} == {"policy.measure = false"}


@pytest.mark.slow
def test_so_many_deliveries_are_measured_on_a_day_as_rounds_and_one_more(clinic):
    """Ten deliveries in an hour once were ten measurements."""
    set_setting(clinic, "rounds_a_day", "1")
    set_setting(clinic, "evaluate", "false")
    site = Site(clinic)
    site.tend(lambda: sum(not delivery.is_to_be_judged for delivery in deliveries(clinic)) == 2)
    end = time.monotonic() + 0.5
    site.tend(lambda: time.monotonic() > end)
    assert [delivery.run for delivery in deliveries(clinic) if delivery.is_to_be_judged] == ["tiny-3"]
    site.pass_time(86_400.0)
    site.tend(lambda: not any(delivery.is_to_be_judged for delivery in deliveries(clinic)))
