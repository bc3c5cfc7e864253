"""The token with which the console lets a person change things; each start of the coordinator makes a new one.

It travels in a header alone: a URL stands in logs and histories, and a browser sends the cookie of an address to every
port of that address.
"""

from __future__ import annotations

import hmac

from fedrag.coordinator.server_folder import ServerFolder
from fedrag.errors import ServiceError
from fedrag.security.keys import new_secret, read_secret

TOKEN_FILE = "console.token"


def renew_token(folder: ServerFolder) -> None:
    """Make a new token, which only the folder's owner can read; the one before is worth nothing from now on."""
    path = folder.path / TOKEN_FILE
    path.unlink(missing_ok=True)
    new_secret(path)


def read_token(folder: ServerFolder) -> str:
    """Return the token.

    Raises:
        ServiceError: The coordinator was never started.
        ConfigError: Others than its owner can read it.
    """
    path = folder.path / TOKEN_FILE
    if not path.is_file():
        raise ServiceError(f"there is no token yet: the first start makes one; run: fedrag server start {folder.path}")
    return read_secret(path).decode("ascii")


def is_token(folder: ServerFolder, shown: str) -> bool:
    """Return whether someone shows the token; the time it takes does not tell how much of it is right.

    Raises:
        ServiceError: The coordinator was never started.
        ConfigError: Others than its owner can read it.
    """
    return hmac.compare_digest(shown.encode("utf-8", "surrogatepass"), read_token(folder).encode())
