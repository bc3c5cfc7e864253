"""Lets one process at a time work in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fedrag.errors import FedragError, StorageError
from fedrag.files import storage_errors

LOCK_FILE = ".lock"


def is_held(folder: Path) -> bool:
    """Return whether a process holds a folder now; one that cannot be asked counts as free."""
    if not (folder / LOCK_FILE).is_file():
        return False
    lock = FileLock(folder / LOCK_FILE, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


@contextmanager
def held_alone(folder: Path, refusal: FedragError) -> Iterator[None]:
    """Hold an existing folder for this process; the system releases it when the process dies, however that happens.

    The file that is locked stays: one who removed it could let two others each lock a file of that name.

    Args:
        folder: The folder.
        refusal: What to raise where another process holds it.

    Raises:
        StorageError: The folder does not exist or is not writable.
    """
    lock = FileLock(folder / LOCK_FILE, blocking=False, mode=0o600)  # who may only read it could hold it too
    if not folder.is_dir():  # the library would make it
        raise StorageError(f"{folder}: cannot be written: no such folder")
    with storage_errors(folder):
        try:
            lock.acquire()
        except Timeout:
            raise refusal from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def in_turn(folder: Path, name: str = LOCK_FILE) -> Iterator[None]:
    """Wait until no other process changes what is in a folder, which is made where it is missing.

    Args:
        folder: The folder.
        name: The file that is locked; one of its own for what changes in a folder that a service holds for weeks.

    Raises:
        StorageError: It is not writable.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
