"""Keys, signatures, secrets: exact formats, files that nobody else can read, and what is refused."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from fedrag.errors import ConfigError, StorageError
from fedrag.security.keys import (
    fingerprint,
    load_private_key,
    load_public_key,
    new_key,
    new_secret,
    private_bytes,
    public_key_text,
    read_public_key,
    sign,
    verify,
)

PEM = serialization.Encoding.PEM
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


@pytest.fixture
def key(tmp_path: Path) -> Path:
    new_key(tmp_path / "site.key")
    return tmp_path / "site.key"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write_private(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_new_key_is_a_pair_of_files(key: Path):
    assert sorted(path.name for path in key.parent.iterdir()) == ["site.key", "site.pub"]
    assert key.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")  # PKCS8
    [line] = key.with_suffix(".pub").read_text().splitlines()
    kind, blob = line.split()
    assert kind == "ecdsa-sha2-nistp384"
    assert b64decode(blob)[4:23] == b"ecdsa-sha2-nistp384"
    assert load_private_key(key).public_key() == load_public_key(key.with_suffix(".pub"))


def test_no_two_keys_are_the_same(tmp_path: Path):
    new_key(tmp_path / "one")
    new_key(tmp_path / "two")
    assert load_public_key(tmp_path / "one.pub") != load_public_key(tmp_path / "two.pub")


def test_private_files_are_private_whatever_the_umask(tmp_path: Path):
    before = os.umask(0)
    try:
        new_key(tmp_path / "site.key")
        new_secret(tmp_path / "secret")
    finally:
        os.umask(before)
    assert mode(tmp_path / "site.key") == mode(tmp_path / "secret") == 0o600


@pytest.mark.parametrize("there", ["site.key", "site.pub"])
def test_a_key_is_never_overwritten(there: str, tmp_path: Path):
    (tmp_path / there).write_text("precious")
    with pytest.raises(ConfigError, match=f"{there}: exists already"):
        new_key(tmp_path / "site.key")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(there, "precious")]


def test_a_private_key_is_not_written_through_a_dangling_link(tmp_path: Path):
    (tmp_path / "site.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="exists already"):
        new_key(tmp_path / "site.key")
    assert not (tmp_path / "elsewhere").exists()


def test_where_the_public_key_cannot_be_written_no_private_one_is_left(tmp_path: Path):
    """A name of 255 bytes is the longest there is; the public key's temporary file has a longer one."""
    private = tmp_path / ("k" * 251 + ".key")
    with pytest.raises(StorageError, match="cannot be written"):
        new_key(private)
    assert not list(tmp_path.iterdir())


def test_a_private_key_cannot_take_its_public_keys_name(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot end in .pub"):
        new_key(tmp_path / "site.pub")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o777])
def test_a_private_key_that_others_can_read_is_refused_with_the_remedy(bits: int, key: Path):
    key.chmod(bits)
    with pytest.raises(ConfigError) as refused:
        load_private_key(key)
    remedy = str(refused.value).partition("run: ")[2]
    assert remedy == f"chmod 600 {key}"
    subprocess.run(remedy, shell=True, check=True)
    load_private_key(key)


def test_the_remedy_can_be_copied_where_the_path_has_spaces(tmp_path: Path):
    new_key(tmp_path / "my site.key")
    (tmp_path / "my site.key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600 '.*/my site.key'$"):
        load_private_key(tmp_path / "my site.key")


def test_every_fault_of_a_private_key_is_named_with_its_file(tmp_path: Path):
    passphrase = serialization.BestAvailableEncryption(b"sesame")
    locked = ec.generate_private_key(ec.SECP384R1()).private_bytes(PEM, serialization.PrivateFormat.PKCS8, passphrase)
    faults = {
        "garbage": (b"\x00\xff nothing", "expected a private key"),
        "empty": (b"", "expected a private key"),
        "other-curve": (private_bytes(ec.generate_private_key(ec.SECP256R1())), "of another kind"),
        "locked": (locked, "passphrase"),
    }
    for name, (content, fault) in faults.items():
        path = write_private(tmp_path / name, content)
        with pytest.raises(ConfigError, match=f"{name}: .*{fault}"):
            load_private_key(path)
    with pytest.raises(ConfigError, match="missing: cannot be read: No such file"):
        load_private_key(tmp_path / "missing")


def test_a_public_key_is_read_in_both_forms_and_with_a_comment(key: Path, tmp_path: Path):
    expected = load_private_key(key).public_key()
    line = key.with_suffix(".pub").read_text().strip()
    (tmp_path / "commented").write_text(f"\n{line} anna@clinic\r\n")
    (tmp_path / "pem").write_bytes(expected.public_bytes(PEM, SPKI))
    for name in ("site.pub", "commented", "pem"):
        assert load_public_key(tmp_path / name) == expected
    assert public_key_text(expected) == line
    assert read_public_key(line, "the register") == expected


def test_every_fault_of_a_public_key_is_named_with_its_file(key: Path, tmp_path: Path):
    line = key.with_suffix(".pub").read_bytes()
    other_curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    other_kind = ed25519.Ed25519PrivateKey.generate().public_key()
    ssh = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    faults = {
        "private": (key.read_bytes(), "is a private key"),
        "two": (line + line, "expected one public key"),
        "cut": (line[:-30], "expected one public key"),
        "no-point": (line[:-20] + b"AAAAAAAAAAAAAAAAAA==", "expected one public key"),
        "garbage": (b"\xff\xfe\x00", "expected one public key"),
        "empty": (b"", "expected one public key"),
        "p256": (other_curve.public_bytes(*ssh), "of another kind"),
        "p256-pem": (other_curve.public_bytes(PEM, SPKI), "of another kind"),
        "ed25519": (other_kind.public_bytes(*ssh), "of another kind"),
    }
    for name, (content, fault) in faults.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=f"{name}: .*{fault}"):
            load_public_key(tmp_path / name)
    with pytest.raises(ConfigError, match="missing: cannot be read"):
        load_public_key(tmp_path / "missing")


def test_a_fingerprint_is_the_hash_of_the_key_in_opensshs_wire_form(key: Path):
    public = load_public_key(key.with_suffix(".pub"))
    point = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    parts = (b"ecdsa-sha2-nistp384", b"nistp384", point)
    wire = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    expected = b64encode(hashlib.sha256(wire).digest()).decode().rstrip("=")
    assert fingerprint(public) == f"SHA256:{expected}"
    assert len(expected) == 43


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_ssh_keygen_shows_the_same_fingerprint_and_the_same_public_key(key: Path):
    def ssh_keygen(*arguments: str | Path) -> list[str]:
        done = subprocess.run(["ssh-keygen", *arguments], capture_output=True, text=True, check=True)
        return done.stdout.split()

    public = key.with_suffix(".pub")
    assert ssh_keygen("-lf", public)[:2] == ["384", fingerprint(load_public_key(public))]
    assert ssh_keygen("-y", "-f", key) == public.read_text().split()


def test_a_signature_holds_for_its_key_and_message_alone(key: Path, tmp_path: Path):
    new_key(tmp_path / "other.key")
    private, other = load_private_key(key), load_public_key(tmp_path / "other.pub")
    signature = sign(private, b"round 1")
    assert verify(private.public_key(), signature, b"round 1")
    assert not verify(private.public_key(), signature, b"round 2")
    assert not verify(other, signature, b"round 1")
    for place in range(len(signature)):
        altered = bytearray(signature)
        altered[place] ^= 1
        assert not verify(private.public_key(), bytes(altered), b"round 1")


def test_what_is_no_signature_is_refused_and_raises_nothing(key: Path):
    private = load_private_key(key)
    good = sign(private, b"")
    assert verify(private.public_key(), good, b"")
    garbage = (b"", b"\x00", b"\x30", b"\x30\x00", b"\x30\x06\x02\x01\x00\x02\x01\x00", good[:-1], good + b"\x00")
    for signature in (*garbage, bytes(100_000), b"\x30\x84\xff\xff\xff\xff" + bytes(64)):
        assert not verify(private.public_key(), signature, b"")


def test_a_signature_uses_sha384(key: Path):
    private = load_private_key(key)
    with_sha256 = private.sign(b"m", ec.ECDSA(hashes.SHA256()))
    with_sha384 = private.sign(b"m", ec.ECDSA(hashes.SHA384()))
    assert [verify(private.public_key(), signature, b"m") for signature in (with_sha256, with_sha384)] == [False, True]


def test_a_secret_is_64_hex_characters_and_nothing_else(tmp_path: Path):
    new_secret(tmp_path / "a")
    new_secret(tmp_path / "b")
    one, two = (tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()
    assert len(one) == 64
    assert set(one) <= set(b"0123456789abcdef")
    assert one != two
    with pytest.raises(ConfigError, match="exists already"):
        new_secret(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == one
