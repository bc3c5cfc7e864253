"""What people say about a site's answers: one SQLite file in the site's data folder, which never leaves the site.

A row tells what was asked, answered and shown, and what a person made of it; who that was is stored nowhere. The file
is no part of the site's data (`fedrag.data.site_folder`) until a reviewer's accepted rows are exported to it.

Several processes may write at once: the service that answers, a reviewer's terminal, an export. Each call is one
transaction; when it returns, it is on disk.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedrag.data.feedback_row import STATES, TAKEN, Feedback, State, sound
from fedrag.errors import DataError, StorageError

FEEDBACK_FILE = "feedback.sqlite"

_BUSY_S = 30.0
_AGAIN_S = 0.01
_VERSION = 1

_TABLE = f"""
CREATE TABLE feedback (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    day TEXT NOT NULL,
    question TEXT NOT NULL,
    answer TEXT NOT NULL,
    shown TEXT NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('right', 'wrong')),
    correction TEXT NOT NULL,
    right_ids TEXT NOT NULL,
    wrong_ids TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN {STATES}),
    exported INTEGER NOT NULL DEFAULT 0
)
"""
_LISTS = ("shown", "right_ids", "wrong_ids")
_COLUMNS = ("id", "day", "question", "answer", *_LISTS, "verdict", "correction", "state", "exported")
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM feedback"


@dataclass(frozen=True, slots=True)
class FeedbackStore:
    """The feedback of one site; only its owner can read the file.

    Attributes:
        folder: The site's data folder.
    """

    folder: Path

    @property
    def path(self) -> Path:
        """The file; it is made with the first row."""
        return self.folder / FEEDBACK_FILE

    def add(self, feedback: Feedback) -> str:
        """Keep what a person said; return its id.

        Raises:
            DataError: A text is blank, too long or no text.
            StorageError: The file cannot be written.
        """
        feedback = sound(feedback)
        row = {name: getattr(feedback, name) for name in _COLUMNS} | {"exported": int(feedback.exported)}
        row |= {name: json.dumps(row[name]) for name in _LISTS}
        places = ", ".join(f":{name}" for name in _COLUMNS)
        with self._write() as connection:
            connection.execute(f"INSERT INTO feedback ({', '.join(_COLUMNS)}) VALUES ({places})", row)
        return feedback.id

    def rows(self, *states: State) -> list[Feedback]:
        """Return the rows in these states, or all of them, in order of arrival.

        Raises:
            StorageError: The file cannot be read.
        """
        if not self.path.exists():
            return []
        with self._connect() as connection:
            found = connection.execute(f"{_SELECT} ORDER BY number").fetchall()
        return [row for row in map(_parse, found) if not states or row.state in states]

    def find(self, identity: str) -> Feedback:
        """Return one row.

        Raises:
            DataError: There is none of that id.
            StorageError: The file cannot be read.
        """
        if not self.path.exists():
            raise _unknown(identity)
        with self._connect() as connection:
            return self._row(connection, identity)

    def review(
        self, identity: str, state: State, correction: str | None = None, right_ids: Sequence[str] | None = None
    ) -> Feedback:
        """Write down a reviewer's decision; return the row as it is now.

        Args:
            identity: The row's id.
            state: The decision; "edited" where an answer or passages are given.
            correction: Another right answer; None: it stays.
            right_ids: Other right passages; None: they stay.

        Raises:
            DataError: There is no such row, it is exported already, or it would be taken without a right answer or
                passage.
            StorageError: The file cannot be written.
        """
        with self._write() as connection:
            before = self._row(connection, identity)
            if before.exported:
                raise DataError(f"{before.question!r}: is a training question already; change it in train.jsonl")
            after = sound(
                replace(
                    before,
                    state=state,
                    correction=before.correction if correction is None else correction,
                    right_ids=before.right_ids if right_ids is None else tuple(dict.fromkeys(right_ids)),
                )
            )
            if state in TAKEN and not (after.right_answer or after.right_ids):
                raise DataError(f"{after.question!r}: has neither a right answer nor a right passage yet; give one")
            connection.execute(
                "UPDATE feedback SET state = ?, correction = ?, right_ids = ? WHERE id = ?",
                (after.state, after.correction, json.dumps(after.right_ids), identity),
            )
        return after

    @contextmanager
    def exporting(self) -> Iterator[tuple[list[Feedback], list[str]]]:
        """Yield the rows to export, and a list for the ids of those that are; nobody else exports meanwhile.

        Raises:
            StorageError: The file cannot be written.
        """
        with self._write() as connection:
            exported: list[str] = []
            found = connection.execute(f"{_SELECT} WHERE NOT exported ORDER BY number").fetchall()
            yield [row for row in map(_parse, found) if row.state in TAKEN], exported
            connection.executemany("UPDATE feedback SET exported = 1 WHERE id = ?", [(i,) for i in exported])

    def _row(self, connection: sqlite3.Connection, identity: str) -> Feedback:
        found = connection.execute(f"{_SELECT} WHERE id = ?", (identity,)).fetchone()
        if found is None:
            raise _unknown(identity)
        return _parse(found)

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """Open the file, made private first, for one transaction that is on disk at the end, or not at all."""
        with self._connect() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            # SQLite gives the files beside it the mode of this one.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))
            with closing(sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)) as connection:
                self._prepare(connection)
                yield connection
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be written: {error.strerror}") from None
        except sqlite3.Error as error:
            raise StorageError(f"{self.path}: cannot be used as a store of feedback: {error}") from None

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the table where there is none.

        SQLite waits for others by itself, except while one switches a new file to its write-ahead log or removes that
        log at the end.
        """
        deadline = time.monotonic() + _BUSY_S
        while True:
            try:
                return self._try_to_prepare(connection)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(_AGAIN_S)

    def _try_to_prepare(self, connection: sqlite3.Connection) -> None:
        version = _version(connection)
        if version > _VERSION:
            raise StorageError(f"{self.path}: was written by a newer fedrag (format {version}); update fedrag")
        if version == _VERSION:
            return
        connection.execute("PRAGMA journal_mode = WAL")  # readers and a writer need not wait for each other
        connection.execute("BEGIN IMMEDIATE")
        if not _version(connection):  # another process may have been faster
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute("COMMIT")


def _unknown(identity: str) -> DataError:
    return DataError(f'no feedback has the id "{identity}"')


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _parse(row: tuple[Any, ...]) -> Feedback:
    values = dict(zip(_COLUMNS, row, strict=True))
    values |= {name: tuple(json.loads(values[name])) for name in _LISTS}
    return Feedback(**values | {"exported": bool(values["exported"])})
