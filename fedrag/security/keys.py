"""Key pairs (EC P-384), signatures with them (ECDSA, SHA-384), shared secrets, and the files that hold them."""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
from base64 import b64decode, b64encode
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedrag.errors import ConfigError
from fedrag.files import storage_errors, write_text

_ECDSA = ec.ECDSA(hashes.SHA384())
_SSH_NAME = "ecdsa-sha2-nistp384"


def new_key(path: Path) -> None:
    """Write a new key pair: the private key to `path` (PEM, mode 0600), the public one next to it as `.pub` (OpenSSH).

    Raises:
        ConfigError: One of the two files exists already; nothing is written.
        StorageError: The disk is full or the folder cannot be written.
    """
    public = path.with_suffix(".pub")
    if public == path:
        raise ConfigError(f"{path}: a private key cannot end in .pub, which is its public key's ending")
    if os.path.lexists(public):
        raise ConfigError(f"{public}: exists already; a key is never overwritten")
    key = ec.generate_private_key(ec.SECP384R1())
    create_secret(path, private_bytes(key))
    try:
        write_text(public, public_key_text(key.public_key()) + "\n")
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def load_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a private key that nobody but its owner can read.

    Raises:
        ConfigError: The file is missing, open to others, or holds no EC P-384 private key without a passphrase.
    """
    try:
        key = serialization.load_pem_private_key(read_secret(path), password=None)
    except TypeError:
        raise ConfigError(f"{path}: is protected by a passphrase; expected a private key without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{path}: expected a private key (EC P-384, PEM)") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError(f"{path}: is a private key of another kind; expected EC P-384")
    return key


def load_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """Read a file with a public key, in OpenSSH or PEM form.

    Raises:
        ConfigError: The file is missing or holds no EC P-384 public key.
    """
    return read_public_key(_read(path).decode("ascii", errors="replace"), str(path))


def read_public_key(text: str, where: str) -> ec.EllipticCurvePublicKey:
    """Read a public key, in OpenSSH or PEM form.

    Args:
        text: The key; a comment may follow that of OpenSSH.
        where: What holds the text, for errors.

    Raises:
        ConfigError: It is no EC P-384 public key.
    """
    if "PRIVATE KEY" in text:
        raise ConfigError(f"{where}: is a private key, which never leaves its owner; expected the public one")
    content = text.strip().encode()
    is_pem = content.startswith(b"-----BEGIN")
    load = serialization.load_pem_public_key if is_pem else serialization.load_ssh_public_key
    try:
        if not is_pem and b"\n" in content:
            raise ValueError("more than one line")
        key = load(content)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{where}: expected one public key ({_SSH_NAME} AAAA..., or PEM)") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError(f"{where}: is a public key of another kind; expected EC P-384 ({_SSH_NAME})")
    return key


def public_key_text(public_key: ec.EllipticCurvePublicKey) -> str:
    """Return a public key as the one line of OpenSSH, without a comment or a line end."""
    return public_key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def fingerprint(public_key: ec.EllipticCurvePublicKey) -> str:
    """Return what `ssh-keygen -lf` shows of a key: "SHA256:" and 43 characters."""
    blob = public_key_text(public_key).split()[1]
    digest = hashlib.sha256(b64decode(blob)).digest()
    return "SHA256:" + b64encode(digest).decode().rstrip("=")


def sign(private_key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """Sign a message; the signature has about 103 bytes (DER) and differs from call to call."""
    return private_key.sign(message, _ECDSA)


def verify(public_key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes) -> bool:
    """Return whether a signature is this key's over this message; False for any other bytes."""
    try:
        public_key.verify(signature, message, _ECDSA)
    except InvalidSignature:
        return False
    return True


def new_secret(path: Path) -> None:
    """Write a new shared secret: 64 hex characters and no line end, which would count as part of it; mode 0600.

    Raises:
        ConfigError: The file exists already.
        StorageError: The disk is full or the folder cannot be written.
    """
    create_secret(path, secrets.token_hex(32).encode())


def create_secret(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read, from its first moment on.

    Raises:
        ConfigError: The file exists already.
        StorageError: The disk is full or the folder cannot be written.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise ConfigError(f"{path}: exists already; a key or secret is never overwritten") from None
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def read_secret(path: Path) -> bytes:
    """Read a file that only its owner can read.

    Raises:
        ConfigError: The file is missing, or its group or others can read or write it.
    """
    return _read(path, private=True)


def private_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key in PEM form (PKCS8), without a passphrase."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def _read(path: Path, private: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            if private and os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigError(f"{path}: others than its owner can read it; run: chmod 600 {shlex.quote(str(path))}")
            return file.read()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
