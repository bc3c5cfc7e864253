"""Keeps what fedrag writes to its owner: folders with mode 700, files with mode 600.

A folder whose set-group-id bit is set is open to a group on purpose: there the group may read, too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from fedrag.errors import ConfigError
from fedrag.files import storage_errors
from fedrag.text import plural

OWNER_ONLY = 0o077
"""The umask under which only the owner can read what is made."""
GROUP_READS = 0o027
"""The umask under which the group can read it, too."""


@contextmanager
def private_files(mask: int = OWNER_ONLY) -> Iterator[None]:
    """Let this process, and those that it starts, make files that only their owner can read."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mask_of(folder: Path) -> int:
    """Return the umask for what is written into a folder."""
    return GROUP_READS if folder.is_dir() and folder.stat().st_mode & stat.S_ISGID else OWNER_ONLY


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can enter, or close one that exists.

    Raises:
        StorageError: It cannot be made, or is another user's.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)


def loose_paths(folder: Path, others: Collection[Path] = ()) -> list[Path]:
    """Return what in a folder is open to more than it should be, the folder first.

    Args:
        folder: The folder.
        others: Paths whose mode is somebody else's affair, with all they hold.
    """
    mask, kept = mask_of(folder), {path.absolute() for path in others}
    return [path for path in _walk(folder.absolute(), kept) if stat.S_IMODE(path.lstat().st_mode) & mask]


def require_private(folder: Path, others: Collection[Path] = ()) -> str:
    """Say that only the owner can read a folder; see `loose_paths`.

    Raises:
        ConfigError: Something in it is open to more.
    """
    by_group, loose = mask_of(folder) == GROUP_READS, loose_paths(folder, others)
    if not loose:
        return "only its owner and its group can read it" if by_group else "only its owner can read it"
    more = f" and {plural(len(loose) - 1, 'other')}" if len(loose) > 1 else ""
    rights = "g-w,o=" if by_group else "go="
    raise ConfigError(f"{loose[0]}{more}: open to others than the owner; run: chmod -R {rights} {quote(str(folder))}")


def _walk(folder: Path, kept: Collection[Path]) -> Iterator[Path]:
    """Yield a folder and all in it, without what links lead to."""
    yield folder
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            path = Path(entry.path)
            if path in kept or entry.is_symlink() or stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                continue  # a socket is nginx's to make; the folder round it is closed
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(path, kept)
            else:
                yield path
