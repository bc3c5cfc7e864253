"""A chained log: what a crash leaves is no break; what a person changes is one, for ever."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from itertools import permutations

import pytest

from fedrag.errors import StorageError
from fedrag.security.chained_log import ChainedLog, raw_lines


@pytest.fixture
def log(tmp_path) -> ChainedLog:
    return ChainedLog(tmp_path / "log.jsonl")


def write(log: ChainedLog, *numbers: int) -> None:
    for number in numbers:
        log.append({"number": number, "text": "é"})


def numbers(log: ChainedLog) -> list[int]:
    return [json.loads(raw)["number"] for raw in raw_lines(log.path)]


def rewrite_lines(log: ChainedLog, lines: list[bytes]) -> None:
    log.path.write_bytes(b"".join(raw + b"\n" for raw in lines))


def test_a_log_that_nobody_touched_is_whole(log):
    assert log.verify().faults == ()
    write(log, 1, 2, 3)
    found = log.verify()
    assert (found.lines, found.before, found.faults) == (3, 0, ())
    assert found.chain == json.loads(raw_lines(log.path)[-1])["chain"]


def test_its_lines_are_json_as_before_and_only_its_owner_reads_them(log):
    write(log, 1)
    [raw] = raw_lines(log.path)
    assert list(json.loads(raw)) == ["number", "text", "chain"]
    for path in (log.path, log.head_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_line_that_is_removed_is_missed(log):
    write(log, *range(5))
    whole = raw_lines(log.path)
    for number in range(5):
        rewrite_lines(log, whole[:number] + whole[number + 1 :])
        assert log.verify().faults, number
    rewrite_lines(log, whole)
    assert log.verify().faults == ()


def test_any_other_order_is_seen(log):
    write(log, 1, 2, 3)
    whole = raw_lines(log.path)
    for order in permutations(range(3)):
        rewrite_lines(log, [whole[place] for place in order])
        assert bool(log.verify().faults) == (order != (0, 1, 2)), order


def test_every_byte_that_is_altered_is_seen_in_its_own_line(log):
    write(log, 1, 2, 3)
    whole = log.path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        log.path.write_bytes(changed)
        assert log.verify().faults, (place, bytes(changed))


def test_the_sentence_names_the_line(log):
    write(log, 1, 2, 3)
    log.path.write_text(log.path.read_text().replace('"number": 2', '"number": 7'))
    assert log.verify().faults == (
        "line 2 does not follow from what stands before it: a line was altered, removed or put in here",
    )


def test_a_line_that_is_put_in_is_seen(log):
    write(log, 1, 2)
    first, second = raw_lines(log.path)
    for foreign in (first, b'{"number": 7, "text": "x"}', b"noise"):
        rewrite_lines(log, [first, foreign, second])
        assert log.verify().faults, foreign


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_log_that_lost_its_end_does_not_reach_its_head(log, kept):
    write(log, 1, 2, 3)
    rewrite_lines(log, raw_lines(log.path)[:kept])
    [fault] = log.verify().faults
    assert fault.startswith("the log ends before the line that log.head names")


def test_a_log_that_is_gone_is_missed(log):
    write(log, 1)
    log.path.unlink()
    assert log.verify().faults


def test_a_head_that_is_gone_is_missed(log):
    write(log, 1)
    log.head_path.unlink()
    assert log.verify().faults == (
        "log.head is missing or damaged, so nothing tells whether lines are missing at the end",
    )


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_what_is_written_later_does_not_cover_a_lost_end(log, kept):
    write(log, 1, 2, 3)
    rewrite_lines(log, raw_lines(log.path)[:kept])
    write(log, 4, 5)
    assert numbers(log) == [*range(1, kept + 1), 4, 5]
    [fault] = log.verify().faults
    assert fault.startswith(f"line {kept + 1} does not follow")


def test_what_is_written_later_does_not_cover_a_change_either(log):
    write(log, 1, 2, 3)
    for old, new in (('"number": 2', '"number": 1234'), ('"number": 3', '"number": 4')):
        log.path.write_text(log.path.read_text().replace(old, new))
        write(log, 5)
        assert log.verify().faults


@pytest.mark.parametrize("kept", [1, 30, -2])
def test_a_line_that_a_crash_cut_off_is_no_break(log, kept):
    write(log, 1, 2)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + raw_lines(log.path)[0][:kept])
    assert log.verify().faults == ()
    write(log, 3)
    assert log.path.read_bytes().startswith(whole)
    assert log.verify().faults == ()
    assert log.verify().lines == 3


def test_but_what_a_crash_left_cannot_be_changed_later(log):
    write(log, 1)
    log.path.write_bytes(log.path.read_bytes() + b'{"number": 2')
    write(log, 3)
    log.path.write_bytes(log.path.read_bytes().replace(b'{"number": 2\n', b'{"number": 4\n'))
    assert log.verify().faults


def test_a_crash_between_a_line_and_its_head_is_no_break(log):
    write(log, 1, 2)
    before = log.head_path.read_bytes()
    write(log, 3)
    log.head_path.write_bytes(before)
    assert log.verify().faults == ()
    write(log, 4)
    assert log.verify().faults == ()
    assert log.verify().lines == 4


def test_a_log_that_is_older_than_its_chain_goes_on_and_cannot_be_changed_any_more(log):
    old = b'{"number": 1}\n{"number": 2}\n'
    log.path.write_bytes(old)
    assert (log.verify().before, log.verify().faults) == (2, ())
    write(log, 3)
    assert log.path.read_bytes().startswith(old)
    found = log.verify()
    assert (found.before, found.lines, found.faults) == (2, 1, ())
    rewrite_lines(log, raw_lines(log.path)[1:])
    assert log.verify().faults


def test_a_whole_new_log_is_found_out_by_a_chain_that_was_noted(log, tmp_path):
    write(log, 1, 2)
    noted = log.verify().chain
    write(log, 3)
    assert log.verify(noted).faults == ()
    log.path.unlink()
    log.head_path.unlink()
    write(log, 1, 3)
    assert log.verify().faults == (), "whoever owns both files can do that"
    assert log.verify(noted).faults == (f"no line has the chain {noted}: the log was written anew since it was noted",)


def test_a_line_that_finds_no_room_leaves_nothing(tmp_path):
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="the disk is full"):
        write(ChainedLog(tmp_path / "log.jsonl"), 1)


def test_a_head_that_cannot_be_written_takes_its_line_back(log):
    write(log, 1)
    whole = log.path.read_bytes()
    log.head_path.unlink()
    log.head_path.mkdir()
    with pytest.raises(StorageError, match=r"log\.head: cannot be written"):
        write(log, 2)
    assert log.path.read_bytes() == whole


WRITER = """
import sys
from pathlib import Path
from fedrag.security.chained_log import ChainedLog
log = ChainedLog(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    log.append({"number": number, "who": sys.argv[3]})
    print(number, flush=True)
"""


def start_writer(log: ChainedLog, lines: int, who: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(log.path), str(lines), who]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_writers_take_turns(log):
    writers = [start_writer(log, 50, who) for who in "abc"]
    assert [len(writer.communicate()[0].split()) for writer in writers] == [50, 50, 50]
    assert (log.verify().lines, log.verify().faults) == (150, ())
    lines = [json.loads(raw) for raw in raw_lines(log.path)]
    for who in "abc":
        assert [line["number"] for line in lines if line["who"] == who] == list(range(50))


def test_one_that_is_killed_leaves_a_whole_log(log):
    confirmed = 0
    for _ in range(5):
        with start_writer(log, 100_000, "a") as process:
            assert process.stdout is not None
            confirmed += len([process.stdout.readline() for _ in range(10)])
            os.kill(process.pid, signal.SIGKILL)
            confirmed += len(process.stdout.read().split())
        write(log, 7)
        confirmed += 1
        assert log.verify().faults == ()
        assert log.verify().lines >= confirmed
