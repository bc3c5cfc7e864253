"""What is installed: one hash over every file of the package, to compare two installations by."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fedrag import __version__
from fedrag.files import sha256_of

PACKAGE = Path(__file__).parents[1]
RELEASE_FILE = "release.txt"
"""The file, among what sites get, that says what the coordinator has installed."""


def installed_release(package: Path = PACKAGE) -> str:
    """Return version and hash of an installed package, as `0.2.0 sha256:...`; what Python compiles does not count."""
    files = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    lines = sorted(f"{path.relative_to(package).as_posix()} {sha256_of(path)}" for path in files)
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return f"{__version__} sha256:{digest}"
