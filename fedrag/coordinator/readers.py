"""Lets a group of the system read a coordinator's folder, but its keys and its database.

Who reads is decided by the system's file permissions: the folder itself is closed to all but its owner and this group,
and what is secret in it to all but its owner.
"""

from __future__ import annotations

import grp
import os
from pathlib import Path

from fedrag.errors import ConfigError

DATABASE = "superlink.db"


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
            os.chown(folder, -1, number)
            os.chmod(folder, 0o2750)  # what is made in it belongs to the group too
            for name in names:
                os.chown(Path(folder) / name, -1, number, follow_symlinks=False)
    except PermissionError:
        raise ConfigError(
            f"{path}: its owner is no member of the group {group}; add them with: usermod -aG {group} USER"
        ) from None
