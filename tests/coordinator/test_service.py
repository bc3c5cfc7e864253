"""What the coordinator's service does beside keeping its children alive."""

from __future__ import annotations

import sys
import time

from fedrag.coordinator import service
from fedrag.coordinator.service import keep_small
from fedrag.service.children import Child

REOPENS = """
import signal, time
log = open("access.log", "a")
def reopen(number, frame):
    global log
    log = open("access.log", "a")
signal.signal(signal.SIGUSR1, reopen)
print("up", flush=True)
while True:
    log.write("line\\n"); log.flush(); time.sleep(0.05)
"""


def test_a_large_access_log_is_turned_over_and_the_door_goes_on_in_a_new_one(tmp_path, monkeypatch):
    monkeypatch.setattr(service, "LOG_BYTES", 100)
    monkeypatch.chdir(tmp_path)
    door = Child("door", [sys.executable, "-c", REOPENS], tmp_path / "door.log")
    door.start()
    log = tmp_path / "access.log"
    try:
        end = time.monotonic() + 20
        while not log.with_suffix(".1.log").is_file():
            assert time.monotonic() < end
            keep_small(door, log)
            time.sleep(0.05)
        while not log.is_file():
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        door.end()
    assert log.with_suffix(".1.log").stat().st_size > 100
