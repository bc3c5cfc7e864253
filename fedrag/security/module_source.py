"""The hash of an installed module's source, taken without running any of it.

`python -m fedrag.security.module_source NAME` prints it.
"""

from __future__ import annotations

import hashlib
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

from fedrag.errors import ConfigError


def source_sha256(module: str) -> str:
    """Return the sha256 of a module's source: of its file, or of all Python files of a package, with their names.

    Args:
        module: Its name, without dots: to look below a package would run it.

    Raises:
        ConfigError: It is not installed, or not all of it is Python source.
    """
    spec = find_spec(module) if module.isidentifier() else None
    if spec is None or (spec.origin and spec.origin.endswith(".py") and not Path(spec.origin).is_file()):
        raise ConfigError(f"own.module: {module} is not installed here; every party installs the same one")
    if not spec.origin or not spec.origin.endswith(".py"):
        raise ConfigError(f"own.module: {module} is no module of Python source, of which a hash could be taken")
    origin = Path(spec.origin)
    root = origin.parent
    files = sorted(root.rglob("*.py")) if spec.submodule_search_locations else [origin]
    if spec.submodule_search_locations and any(
        path.name.endswith(tuple(EXTENSION_SUFFIXES)) for path in root.rglob("*")
    ):
        raise ConfigError(f"own.module: {module} holds compiled code, which the hash of its source does not cover")
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.stdout.write(f"{source_sha256(sys.argv[1])}\n")
