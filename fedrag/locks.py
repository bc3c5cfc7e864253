"""Lets one process at a time work in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    lock = _lock_of(folder)
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
def held_without_trace(folder: Path, refusal: FedragError) -> Iterator[None]:
    """Hold an existing folder of a user's as `held_alone` does, and take the file that is locked away again.

    Whoever holds the lock removes its file before he lets it go. So one who got a lock counts it only where the file
    of that name was the same before and after: another lies there if it was removed meanwhile.

    Args:
        folder: The folder. `held_alone` must not be used for it too.
        refusal: What to raise where another process holds it.

    Raises:
        StorageError: The folder does not exist or is not writable.
    """
    lock, path = _lock_of(folder), folder / LOCK_FILE
    with storage_errors(folder):
        while not _locked_as_it_lies(lock, path, refusal):
            pass
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file: there it stays
            path.unlink()
        lock.release()


def _locked_as_it_lies(lock: FileLock, path: Path, refusal: FedragError) -> bool:
    """Take the lock and return True, or return False where its file was removed meanwhile: then it is not held."""
    # While this file is open, no other file gets its number.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        lock.acquire()
        if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
            return True
        lock.release()
        return False
    except Timeout:
        raise refusal from None
    finally:
        os.close(handle)


def _lock_of(folder: Path) -> FileLock:
    """Return the lock of an existing folder; who may only read its file could hold it too, so nobody else may."""
    if not folder.is_dir():  # the library would make it
        raise StorageError(f"{folder}: cannot be written: no such folder")
    return FileLock(folder / LOCK_FILE, blocking=False, mode=0o600)


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
