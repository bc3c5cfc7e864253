import multiprocessing
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest

from fedrag.data.check import check_sites
from fedrag.data.feedback_row import Feedback
from fedrag.data.feedback_store import FEEDBACK_FILE, FeedbackStore
from fedrag.data.site_folder import hash_site, load_site
from fedrag.errors import DataError, StorageError

WRONG = Feedback("What does a late book cost?", "a euro", ("p1", "p2"), "wrong", "ten cents a day", ("p1",), ("p2",))


@pytest.fixture
def site_folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree("simulations/data/tiny/north", tmp_path / "north"))


def test_a_row_comes_back_as_it_was_given(tmp_path):
    store = FeedbackStore(tmp_path)
    right = Feedback("Où ?", "là 🙂", (), "right", day="2026-01-31")
    assert [store.add(WRONG), store.add(right)] == [WRONG.id, right.id]
    assert store.rows() == [WRONG, right]
    assert store.find(right.id) == right
    assert (WRONG.right_answer, right.right_answer) == ("ten cents a day", "là 🙂")
    assert replace(WRONG, correction="").right_answer == ""


def test_nothing_tells_who_or_at_what_time(tmp_path):
    store = FeedbackStore(tmp_path)
    store.add(WRONG)
    columns = sqlite3.connect(store.path).execute("SELECT name FROM pragma_table_info('feedback')").fetchall()
    assert {name for (name,) in columns} == {"number", *(field.name for field in fields(Feedback))}
    assert len(store.rows()[0].day) == len("2026-01-31")


def test_the_file_is_its_owners_alone_and_no_part_of_the_sites_data(site_folder):
    before = (hash_site(site_folder), load_site(site_folder), check_sites([site_folder]))
    store = FeedbackStore(site_folder)
    store.add(WRONG)
    with sqlite3.connect(store.path) as other:
        other.execute("SELECT count(*) FROM feedback").fetchone()
        store.add(Feedback("Who?", "I", (), "right"))
        beside = sorted(site_folder.glob(f"{FEEDBACK_FILE}*"))
        assert [path.name for path in beside] == [FEEDBACK_FILE, f"{FEEDBACK_FILE}-shm", f"{FEEDBACK_FILE}-wal"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in beside} == {0o600}
    assert (hash_site(site_folder), load_site(site_folder), check_sites([site_folder])) == before


def test_a_reviewer_accepts_edits_and_drops(tmp_path):
    store = FeedbackStore(tmp_path)
    store.add(WRONG)
    assert store.review(WRONG.id, "accepted") == replace(WRONG, state="accepted")
    edited = store.review(WRONG.id, "edited", correction=" 10 cents ", right_ids=["p2", "p2"])
    assert edited == replace(WRONG, state="edited", correction="10 cents", right_ids=("p2",))
    assert store.rows("edited") == [edited]
    assert store.rows("new", "accepted") == []
    assert store.review(WRONG.id, "dropped") == replace(edited, state="dropped")
    with pytest.raises(DataError, match='no feedback has the id "nobody"'):
        store.review("nobody", "dropped")


def test_what_teaches_nothing_is_not_accepted_and_what_is_exported_stays(tmp_path):
    store = FeedbackStore(tmp_path)
    bare = Feedback("When?", "at ten", ("p1",), "wrong")
    store.add(bare)
    with pytest.raises(DataError, match="'When\\?': has neither a right answer nor a right passage yet"):
        store.review(bare.id, "accepted")
    assert store.find(bare.id) == bare
    store.review(bare.id, "edited", right_ids=["p1"])
    with store.exporting() as (rows, exported):
        exported += [row.id for row in rows]
    with pytest.raises(DataError, match="is a training question already"):
        store.review(bare.id, "dropped")
    assert store.find(bare.id).exported


def test_what_a_terminal_would_obey_is_left_out(tmp_path):
    store = FeedbackStore(tmp_path)
    store.add(replace(WRONG, question=" \x1b[2JWho\x07\tis it?\n", correction="a\nb\x9b"))
    (row,) = store.rows()
    assert (row.question, row.correction) == ("[2JWho\tis it?", "a\nb")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"question": "  "}, "the question is blank"),
        ({"verdict": "maybe"}, "the verdict must be one of right, wrong"),
        ({"correction": "x" * 20_001}, "the correction is longer than 20,000 characters"),
        ({"answer": "\ud800"}, "the answer holds half a surrogate pair"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_the_text_not_repeated(tmp_path, fault, told):
    with pytest.raises(DataError, match=told):
        FeedbackStore(tmp_path).add(replace(WRONG, **fault))
    assert FeedbackStore(tmp_path).rows() == []


def test_a_folder_that_cannot_be_written_and_a_file_that_is_no_store_give_one_sentence(tmp_path):
    with pytest.raises(StorageError, match=r"feedback\.sqlite: cannot be written: No such file or directory"):
        FeedbackStore(tmp_path / "nowhere").add(WRONG)
    (tmp_path / FEEDBACK_FILE).write_text("no database at all " * 99)
    with pytest.raises(StorageError, match="cannot be used as a store of feedback: file is not a database"):
        FeedbackStore(tmp_path).rows()


def test_a_newer_format_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / FEEDBACK_FILE) as newer:
        newer.execute("PRAGMA user_version = 2")
    with pytest.raises(StorageError, match="was written by a newer fedrag"):
        FeedbackStore(tmp_path).rows()


def add_many(folder: Path, writer: int) -> None:
    for number in range(20):
        FeedbackStore(folder).add(Feedback(f"Question {number} of {writer}?", "yes", (), "right"))


def test_several_processes_may_write_at_once_also_the_first_row(tmp_path):
    processes = [
        multiprocessing.get_context("fork").Process(target=add_many, args=(tmp_path, writer)) for writer in range(6)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    rows = FeedbackStore(tmp_path).rows()
    assert len({row.question for row in rows}) == len({row.id for row in rows}) == len(rows) == 120


WRITER = """
import sys
from pathlib import Path
from fedrag.data.feedback_row import Feedback
from fedrag.data.feedback_store import FeedbackStore
store = FeedbackStore(Path(sys.argv[1]))
for number in range(100_000):
    store.add(Feedback(f"{number}", "yes", (), "right"))
    print(number, flush=True)
"""


def test_a_kill_in_the_middle_loses_nothing_that_was_confirmed(tmp_path):
    told = tmp_path / "told"
    with told.open("w", encoding="utf-8") as out:
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=out)
        while len(told.read_bytes()) < 200:
            time.sleep(0.02)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    confirmed = [line for line in told.read_text(encoding="utf-8").splitlines() if line]
    kept = [row.question for row in FeedbackStore(tmp_path).rows()]
    assert kept[: len(confirmed)] == confirmed
    assert len(kept) - len(confirmed) in (0, 1)
    FeedbackStore(tmp_path).add(WRONG)
