"""The SuperLink's database gives the room of deleted messages back to the disk, at its start and while it is in use.

SQLite keeps the pages of what was deleted, and its log as large as it ever was. Other processes read and write
meanwhile: each step is a transaction of its own and short, and where the database is busy, the next look goes on.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

LOOK_S = 15.0
KEPT_PAGES = 1024  # free pages that stay, for the messages of the next round
STEP_PAGES = 2048
STEPS = 50  # of one look: some 400 MB
BUSY_S = 0.5


def prepare_database(database: Path) -> None:
    """Make or rewrite a database that nobody uses: without free pages, and so that it can shrink while it is in use."""
    database.touch(mode=0o600)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")


def give_room_back(database: Path) -> None:
    """Give free pages back, and empty the log."""
    with (
        closing(sqlite3.connect(database, timeout=BUSY_S, isolation_level=None)) as connection,
        suppress(sqlite3.OperationalError),  # busy, or the disk is full
    ):
        for _ in range(STEPS):
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            if free <= KEPT_PAGES:
                break
            # As a script: `execute` would step once, which frees one page.
            connection.executescript(f"PRAGMA incremental_vacuum({min(STEP_PAGES, free - KEPT_PAGES)})")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


class DatabaseRoom:
    """Looks at a database now and then.

    Args:
        database: The file.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._next_look = 0.0

    def tend(self) -> None:
        """Give room back, if it is time to."""
        if time.monotonic() >= self._next_look:
            give_room_back(self._database)
            self._next_look = time.monotonic() + LOOK_S
