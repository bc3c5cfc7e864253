"""Signs a file with a key of ours, so that tools which every system has verify it.

```
python -m fedrag.security.file_signature new KEY              # writes KEY and KEY.pub; once
python -m fedrag.security.file_signature sign KEY FILE        # writes FILE.sig
ssh-keygen -e -m PKCS8 -f KEY.pub > KEY.pem
openssl dgst -sha384 -verify KEY.pem -signature FILE.sig FILE
```
"""

from __future__ import annotations

import sys
from pathlib import Path

from fedrag.errors import FedragError
from fedrag.files import rewrite
from fedrag.security.keys import fingerprint, load_private_key, new_key, sign


def sign_file(key: Path, file: Path) -> Path:
    """Write the signature of a file (ECDSA with P-384 and SHA-384, DER) beside it, and return where.

    Raises:
        ConfigError: The key cannot be read, or others than its owner can read it.
        StorageError: The signature cannot be written.
    """
    signature = file.with_name(f"{file.name}.sig")
    rewrite(signature, sign(load_private_key(key), file.read_bytes()))
    return signature


def main(verb: str, key: Path, *files: Path) -> str:
    """Make a key, or sign files with it; return what was done."""
    if verb == "new":
        new_key(key)
        return f"made {key} and {key.with_suffix('.pub')}"
    made = [str(sign_file(key, file)) for file in files]
    return f"{', '.join(made)}: signed with {fingerprint(load_private_key(key).public_key())}"


if __name__ == "__main__":
    try:
        print(main(sys.argv[1], *map(Path, sys.argv[2:])))  # noqa: T201  # a command of the Makefile
    except FedragError as error:
        sys.exit(f"Error: {error}")
