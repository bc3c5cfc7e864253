"""What a release is signed with is verified by tools that every system has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedrag.errors import ConfigError
from fedrag.security.file_signature import sign_file
from fedrag.security.keys import new_key


def typed(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def verified(folder: Path) -> int:
    pem = typed("ssh-keygen", "-e", "-m", "PKCS8", "-f", folder / "release.pub")
    (folder / "release.pem").write_text(pem.stdout)
    check = ("openssl", "dgst", "-sha384", "-verify", folder / "release.pem", "-signature", folder / "SHA256SUMS.sig")
    return typed(*check, folder / "SHA256SUMS").returncode


def test_openssl_verifies_what_the_module_signs(tmp_path):
    (tmp_path / "SHA256SUMS").write_text("00  wheel\n")
    module = (sys.executable, "-m", "fedrag.security.file_signature")
    assert typed(*module, "new", tmp_path / "release.key").stdout.startswith(f"made {tmp_path / 'release.key'} and ")
    signed = typed(*module, "sign", tmp_path / "release.key", tmp_path / "SHA256SUMS")
    assert "SHA256SUMS.sig: signed with SHA256:" in signed.stdout
    assert verified(tmp_path) == 0
    (tmp_path / "SHA256SUMS").write_text("01  wheel\n")
    assert verified(tmp_path) != 0


def test_another_key_verifies_nothing(tmp_path):
    (tmp_path / "SHA256SUMS").write_text("00  wheel\n")
    new_key(tmp_path / "other.key")
    new_key(tmp_path / "release.key")
    sign_file(tmp_path / "other.key", tmp_path / "SHA256SUMS")
    assert verified(tmp_path) != 0


def test_a_key_that_others_can_read_signs_nothing(tmp_path):
    (tmp_path / "SHA256SUMS").write_text("00  wheel\n")
    new_key(tmp_path / "release.key")
    (tmp_path / "release.key").chmod(0o644)
    with pytest.raises(ConfigError, match="others than its owner can read it"):
        sign_file(tmp_path / "release.key", tmp_path / "SHA256SUMS")
    assert not (tmp_path / "SHA256SUMS.sig").exists()
