"""A folder that one process holds at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from fedrag.errors import RunError, StorageError
from fedrag.locks import LOCK_FILE, held_alone, held_without_trace

HOLDER = """
import sys, time
from pathlib import Path
from fedrag.errors import RunError
from fedrag.locks import held_alone
with held_alone(Path(sys.argv[1]), RunError("held")):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_held_by_one_process_until_that_dies(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline().split() == [b"held"]
            with pytest.raises(RunError, match=r"^taken$"), held_alone(tmp_path, RunError("taken")):
                pass
        finally:
            holder.kill()
        holder.wait()
        with held_alone(tmp_path, RunError("taken")):
            pass


def test_a_folder_is_held_once_even_within_a_process(tmp_path: Path):
    with held_alone(tmp_path, RunError("taken")):
        with pytest.raises(RunError, match=r"^taken$"), held_alone(tmp_path, RunError("taken")):
            pass
        with pytest.raises(RunError, match=r"^taken$"), held_alone(tmp_path, RunError("taken")):
            pass
    with held_alone(tmp_path, RunError("taken")):
        pass


def test_a_folder_that_is_not_there_cannot_be_held(tmp_path: Path):
    with pytest.raises(StorageError, match="cannot be written"), held_alone(tmp_path / "none", RunError("taken")):
        pass


def test_a_lock_without_trace_leaves_what_was_there_and_is_held_once(tmp_path: Path):
    with held_without_trace(tmp_path, RunError("taken")):
        assert (tmp_path / LOCK_FILE).stat().st_mode & 0o777 == 0o600
        with pytest.raises(RunError, match=r"^taken$"), held_without_trace(tmp_path, RunError("taken")):
            pass
        assert (tmp_path / LOCK_FILE).exists(), "who is refused takes nothing away"
    assert not list(tmp_path.iterdir())
    with pytest.raises(StorageError, match="no such folder"), held_without_trace(tmp_path / "none", RunError("taken")):
        pass


def test_a_lock_whose_file_was_taken_away_meanwhile_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    taken: list[FileLock] = []

    class TakenAway(FileLock):
        def acquire(self, *args: Any, **settings: Any) -> Any:
            proxy = super().acquire(*args, **settings)
            taken.append(self)
            if len(taken) < 3:  # as if its holder let go between our opening of the file and our lock
                (tmp_path / LOCK_FILE).unlink()
            if len(taken) == 2:  # and a third process made another
                (tmp_path / LOCK_FILE).touch()
            return proxy

    monkeypatch.setattr("fedrag.locks.FileLock", TakenAway)
    with held_without_trace(tmp_path, RunError("taken")):
        assert len(taken) == 3
        with pytest.raises(RunError, match=r"^taken$"), held_without_trace(tmp_path, RunError("taken")):
            pass
    assert not list(tmp_path.iterdir())
