"""The ledger: events are kept whole, in order, through a crash; one that cannot be read lets nothing be spent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from fedrag.dp.accounting import Event, epsilon_of
from fedrag.dp.ledger import LEDGER_FILE, PrivacyLedger, entry_of
from fedrag.errors import StorageError

EVENT = Event(2.0, 0.5, 10)

WRITER = """
import sys
from pathlib import Path
from fedrag.dp.accounting import Event
from fedrag.dp.ledger import PrivacyLedger, entry_of
ledger = PrivacyLedger(Path(sys.argv[1]))
for number in range(1, 100_000):
    ledger.write([entry_of("run", number, name, Event(2.0, 0.5, 10), 180) for name in ("generator", "retriever")])
    print(number, flush=True)
"""


def test_epsilon_is_composed_anew_from_the_events_of_a_run_or_of_all(tmp_path):
    ledger = PrivacyLedger(tmp_path / LEDGER_FILE)
    assert ledger.epsilon(1e-4) == 0.0
    ledger.write([entry_of("one", 1, "generator", EVENT, 180)])
    PrivacyLedger(tmp_path / LEDGER_FILE).write([entry_of("two", 1, "generator", EVENT, 180)])
    assert ledger.epsilon(1e-4) == epsilon_of([Event(2.0, 0.5, 20)], 1e-4)
    assert ledger.epsilon(1e-4, run="one") == epsilon_of([EVENT], 1e-4)
    assert ledger.epsilon(1e-3) < ledger.epsilon(1e-4), "for the delta that is asked, not the one of then"
    assert ledger.epsilon(1e-4, [EVENT]) == epsilon_of([Event(2.0, 0.5, 30)], 1e-4)


def test_a_process_that_is_killed_leaves_whole_entries(tmp_path):
    path = tmp_path / LEDGER_FILE
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for _ in range(5):
        last = writer.stdout.readline()
    time.sleep(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    rest = writer.communicate(timeout=60)[0].split()
    told = int((rest or [last])[-1])
    rounds = [entry.round for entry in PrivacyLedger(path).entries()]
    assert rounds == [number for number in range(1, len(rounds) // 2 + 1) for _ in range(2)]
    assert len(rounds) >= 2 * told, "what was told to be written is there"
    PrivacyLedger(path).write([entry_of("run", 0, "generator", EVENT, 180)])
    assert len(PrivacyLedger(path).entries()) == len(rounds) + 1


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"run": "one"}\n',
        '{"run":"r","round":1,"component":"c","noise_multiplier":-1.0,"sample_rate":1.0,'
        '"steps":1,"units":1,"time":0}\n',
    ],
)
def test_what_cannot_be_read_is_not_overwritten(tmp_path, text):
    path = tmp_path / LEDGER_FILE
    path.write_text(text)
    ledger = PrivacyLedger(path)
    with pytest.raises(StorageError, match="nobody knows how much of epsilon is spent"):
        ledger.epsilon(1e-4)
    with pytest.raises(StorageError):
        ledger.write([entry_of("two", 1, "generator", EVENT, 180)])
    assert path.read_text() == text
