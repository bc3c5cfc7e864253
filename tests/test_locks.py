"""A folder that one process holds at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedrag.errors import RunError, StorageError
from fedrag.locks import held_alone

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
