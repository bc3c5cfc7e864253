"""Lets a group of the system read a coordinator's folder, but its keys and its database.

Who reads is decided by the system's file permissions: the folder itself is closed to all but its owner and this group,
and what is secret in it to all but its owner.
"""

from __future__ import annotations

import grp
import os
import stat
from contextlib import suppress
from pathlib import Path

from fedrag.errors import ConfigError

DATABASE = "superlink.db"
_SECRET = (".key", ".secret", ".token", ".lock")
OPEN_TO_GROUP = 0o2750
"""Mode of a folder whose group may enter and read it; what is made in it belongs to the group too."""


def let_readers_in(path: Path, group: str) -> None:
    """Give a group the right to read a coordinator's folder; do nothing where none is named.

    Args:
        path: The folder.
        group: The group's name; "" for none.

    Raises:
        ConfigError: There is no such group, or the folder's owner is no member of it.
    """
    if not group:
        return
    try:
        number = grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(f"{group}: this machine has no group of this name; make it with: groupadd {group}") from None
    os.close(os.open(path / DATABASE, os.O_RDWR | os.O_CREAT, 0o600))
    os.chmod(path / DATABASE, 0o600)  # it holds the updates that sites sent
    try:
        for folder, _, names in os.walk(path):
            _give(folder, number)
            for name in names:
                _give(os.path.join(folder, name), number)
    except PermissionError:
        raise ConfigError(
            f"{path}: cannot be given to the group {group}: its owner must be a member of it, and under systemd it is "
            f"done once by hand: chgrp -R {group} {path} && find {path} -type d -exec chmod 2750 {{}} +"
        ) from None


def _give(entry: str, group: int) -> None:
    """Give a file or folder to a group, if it is not its own yet: a service of systemd may not set these bits."""
    with suppress(FileNotFoundError):  # a command may replace a file meanwhile
        found = os.lstat(entry)
        if found.st_gid != group:
            os.chown(entry, -1, group, follow_symlinks=False)
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISDIR(found.st_mode) and mode != OPEN_TO_GROUP:
            os.chmod(entry, OPEN_TO_GROUP)
        if stat.S_ISREG(found.st_mode) and not mode & stat.S_IRGRP and not _is_secret(Path(entry).name):
            os.chmod(entry, mode | stat.S_IRGRP)


def _is_secret(name: str) -> bool:
    return name.endswith(_SECRET) or name.startswith(DATABASE)
