"""Children that are kept alive, and that never outlive their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedrag.service import child_log, children
from fedrag.service.children import Child

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def wait(is_so, timeout_s=90.0):
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def child(tmp_path):
    made = Child("sleeper", SLEEPER, tmp_path / "sleeper.log")
    yield made
    made.end(1.0)


def tended(child: Child, said: list[str]):
    child.tend(said.append)
    return child.pid


def test_a_killed_child_is_started_again_and_the_operator_reads_why(child, monkeypatch):
    monkeypatch.setattr(children, "FIRST_WAIT_S", 0.1)
    said: list[str] = []
    child.tend(said.append)
    first = child.pid
    os.kill(first, signal.SIGKILL)
    wait(lambda: tended(child, said) not in (0, first))
    assert len(said) == 1
    assert said[0].startswith("sleeper was ended by SIGKILL; it starts again in 0 s")


def test_a_child_that_dies_at_once_is_started_less_and_less_often(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "FIRST_WAIT_S", 0.05)
    said: list[str] = []
    child = Child("failing", [sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log")
    wait(lambda: tended(child, said) == 0 and len(said) >= 4)
    assert child._wait_s == pytest.approx(0.05 * 2**3)
    assert said[0].startswith("failing ended with code 3")


def test_no_wait_is_longer_than_the_longest(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(children, "LONGEST_WAIT_S", 0.1)
    said: list[str] = []
    child = Child("failing", [sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log")
    wait(lambda: tended(child, said) == 0 and len(said) >= 4)
    assert child._wait_s == 0.1


def test_a_child_that_lived_long_starts_again_as_soon_as_after_its_first_death(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(children, "STEADY_S", 0.2)
    said: list[str] = []
    child = Child("steady", [sys.executable, "-c", "import time; time.sleep(0.3)"], tmp_path / "log")
    wait(lambda: tended(child, said) == 0 and len(said) >= 3)
    assert child._wait_s == 0.05


def test_an_exit_code_with_a_meaning_is_told_by_it(tmp_path):
    said: list[str] = []
    command = [sys.executable, "-c", "raise SystemExit(77)"]
    child = Child("node", command, tmp_path / "log", meanings={77: "was not let in"})
    wait(lambda: tended(child, said) == 0 and bool(said))
    assert said[0].startswith("node was not let in; it starts again in")


def test_what_a_child_prints_is_in_its_log(tmp_path):
    child = Child("printer", [sys.executable, "-c", "print('hello')"], tmp_path / "logs" / "log")
    child.start()
    wait(lambda: child.exit_code == 0)
    child.end()
    assert child.log.read_text() == "hello\n"


PRINTS = "import sys\nfor n in range(20_000): sys.stdout.write({line})"


def printed(tmp_path, line: str) -> Child:
    """Return a child that has printed 20,000 lines and gone."""
    child = Child("printer", [sys.executable, "-c", PRINTS.format(line=line)], tmp_path / "printer.log")
    child.start()
    wait(lambda: child.exit_code == 0)
    child.end()
    return child


def test_a_log_never_grows_over_its_bound_while_the_child_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(child_log, "LOG_BYTES", 100_000)
    monkeypatch.setattr(child_log, "MOST_KINDS", 1_000_000)
    words = "chr(97 + n % 26) + chr(97 + n // 26 % 26) + chr(97 + n // 676 % 26) + chr(97 + n // 17576)"
    child = printed(tmp_path, f"{words} + 'x' * 96 + '\\n'")
    older = child.log.with_suffix(".1.log")
    assert 1 < child.log.stat().st_size <= 100_000
    assert 1 < older.stat().st_size <= 100_000
    assert child.log.read_text().splitlines()[-1].startswith("fpdb"), "the last line of all"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["printer.1.log", "printer.log"]


def test_what_a_child_repeats_is_counted(tmp_path):
    lines = printed(tmp_path, r"f'lost 192.0.2.{n % 256}\n'").log.read_text().splitlines()
    assert lines[:60] == [f"lost 192.0.2.{n}" for n in range(60)]
    (counted,) = lines[60:]
    assert counted.endswith(f" 19940 more lines like this in the last minute: lost 192.0.2.{19_999 % 256}")


def test_what_is_counted_is_told_once_a_minute_and_the_next_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(child_log, "MINUTE_S", 1.0)
    command = "import time\nfor n in range(250): print('lost', n, flush=True); time.sleep(0.01)"
    child = Child("slow", [sys.executable, "-c", command], tmp_path / "slow.log")
    child.start()
    wait(lambda: " more lines like this" in child.log.read_text())
    assert child.pid, "it is told while the child runs"
    wait(lambda: child.exit_code == 0)
    child.end()
    lines = child.log.read_text().splitlines()
    counts = [int(line.split()[2]) for line in lines if " more lines like this in the last minute: lost" in line]
    assert len(counts) in (2, 3, 4)
    assert sum(counts) + len(lines) - len(counts) == 250


def test_many_kinds_of_lines_become_one(tmp_path):
    lines = printed(tmp_path, "'q' * (n % 110) + ' ' * (n // 110) + '\\n'").log.read_text().splitlines()
    assert len(lines) < (child_log.MOST_KINDS + 1) * (child_log.FULL_LINES + 1)


def test_a_line_without_end_costs_no_memory_and_is_cut(tmp_path):
    child = printed(tmp_path, "'x' * 5_000")
    assert child.log.stat().st_size < 100 * child_log.LINE_BYTES
    assert max(len(line) for line in child.log.read_text().splitlines()) <= child_log.LINE_BYTES


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file system")
def test_a_child_goes_on_when_its_log_has_no_room_and_what_was_lost_is_counted(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small], capture_output=True).returncode:
        pytest.skip("this machine lets nobody make a file system")
    try:
        (small / "fill").write_bytes(bytes(61_440))
        command = (
            "import time\nfor n in range(40): print('a' * n * 100, flush=True)\ntime.sleep(1)\nprint('end', flush=True)"
        )
        child = Child("printer", [sys.executable, "-c", command], small / "printer.log")
        child.start()
        time.sleep(0.5)
        (small / "fill").unlink()
        wait(lambda: child.exit_code == 0)
        child.end()
        assert "lines before this one are lost: they could not be written\nend\n" in child.log.read_text()
    finally:
        subprocess.run(["umount", small], check=True)


def test_what_one_that_was_killed_left_behind_is_gone_before_the_next_starts(tmp_path):
    left = tmp_path / "door.sock"
    child = Child("proxy", ["ls"], tmp_path / "log", folder=tmp_path, leftovers=[left])
    left.touch()
    child.start()
    wait(lambda: child.exit_code == 0)
    child.end()
    assert child.log.read_text() == "log\n"


def test_a_log_that_grew_large_is_turned_over_at_the_next_start(child, monkeypatch):
    monkeypatch.setattr(child_log, "LOG_BYTES", 10)
    child.log.write_text("x" * 11)
    child.start()
    assert child.log.with_suffix(".1.log").read_text() == "x" * 11
    assert child.log.stat().st_size == 0


def test_a_child_that_does_not_end_when_asked_is_ended(tmp_path):
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    child = Child("stubborn", [sys.executable, "-c", stubborn], tmp_path / "log")
    child.start()
    wait(lambda: "up" in child.log.read_text())
    pid = child.pid
    child.end(0.3)
    assert not is_alive(pid)


def test_the_children_of_a_child_that_was_killed_are_ended_before_it_starts_again(tmp_path):
    """The workers of a reverse proxy that was killed would keep its port."""
    parent = f"import subprocess; p = subprocess.Popen({SLEEPER!r}); print(p.pid, flush=True); p.wait()"
    child = Child("proxy", [sys.executable, "-c", parent], tmp_path / "log")
    child.start()
    wait(lambda: child.log.read_text().endswith("\n"))
    grandchild = int(child.log.read_text())
    os.kill(child.pid, signal.SIGKILL)
    wait(lambda: child.pid == 0)
    assert is_alive(grandchild)
    child.start()
    wait(lambda: not is_alive(grandchild))
    child.end(1.0)


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_a_child_dies_with_a_parent_that_is_killed(tmp_path):
    script = (
        "import pathlib, time; from fedrag.service.children import Child\n"
        f"child = Child('sleeper', {SLEEPER!r}, pathlib.Path({str(tmp_path / 'log')!r}))\n"
        "child.start(); print(child.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    pid = int(parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    wait(lambda: not is_alive(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="a fork runs no hooks elsewhere")
def test_a_signal_that_comes_while_a_child_is_started_is_not_lost(tmp_path):
    """In a hook of fork an exception is ignored: a service would have gone on, deaf to all further signals."""
    script = (
        "import os, pathlib, signal, time\n"
        "from fedrag.service import stopping; from fedrag.service.children import Child\n"
        "stopping.stop_on_signals()\n"
        "os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM) or [time.sleep(0)])\n"
        f"child = Child('sleeper', {SLEEPER!r}, pathlib.Path({str(tmp_path / 'log')!r}))\n"
        "try:\n    child.start(); time.sleep(5); print('deaf')\n"
        "except stopping.Stop:\n    print('stopped', child.pid > 0)\n"
        "finally:\n    child.end()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "stopped True\n"


WATCHING = "import os, time; from fedrag.service.children import die_with_parent; die_with_parent(os.getppid())"


def test_a_process_that_watches_its_parent_ends_when_that_is_gone(tmp_path):
    watching = f"{WATCHING}; print(os.getpid(), flush=True); time.sleep(600)"
    script = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {watching!r}]).wait()"
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    pid = int(parent.stdout.readline())
    time.sleep(2 * children.WATCH_S)
    assert is_alive(pid), "its parent lives"
    parent.kill()
    parent.wait()
    wait(lambda: not is_alive(pid))
