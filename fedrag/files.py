"""Writes files whole or not at all, and explains failed reads and writes in one sentence."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from fedrag.errors import FedragError, RunError, StorageError


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RunError: The file cannot be read or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RunError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path}: expected a JSON object")
    return content


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all, even if the power fails; all may read it whom the umask lets.

    Raises:
        StorageError: The disk is full or the folder is not writable.
    """
    _write_whole(path, text.encode())


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all.

    Raises:
        StorageError: The disk is full or the folder is not writable.
    """
    _write_whole(path, content, 0o600)


def rewrite(path: Path, content: bytes, like: Path | None = None) -> None:
    """Replace a file of a user's, whole or not at all; who may read it stays as it was, and a link stays one.

    Args:
        path: The file.
        content: What it becomes.
        like: A file whose mode a new one gets.

    Raises:
        StorageError: The disk is full or the folder is not writable.
    """
    path = path.resolve()
    model = path if path.exists() or like is None else like
    _write_whole(path, content, model.stat().st_mode & 0o777 if model.exists() else None)


def _write_whole(path: Path, content: bytes, mode: int | None = None) -> None:
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        name = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if mode else 0o644)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if mode is not None:
                os.chmod(name, mode)
            os.replace(name, path)
        except BaseException:
            name.unlink(missing_ok=True)
            raise


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a partial folder that replaces `folder` once it is complete.

    Raises:
        StorageError: The disk is full or the folder is not writable.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    with storage_errors(folder):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            for path in [p for p in partial.rglob("*") if p.is_file()]:
                with path.open("r+b") as file:  # Windows flushes only what is open for writing
                    os.fsync(file.fileno())
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a failed write into a StorageError of one sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors gives the system's error number only in its text.
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or f"os error {errno.ENOSPC}" in str(error)
        reason = "the disk is full; free some space and resume" if full else getattr(error, "strerror", None) or error
        raise StorageError(f"{path}: cannot be written: {reason}") from None


@contextmanager
def reading_errors(path: Path | str, kind: type[FedragError], missing: str = "no such file") -> Iterator[None]:
    """Turn a failed read of a text file into an error of one sentence.

    Args:
        path: The file.
        kind: The error to raise.
        missing: What to say if there is no file.
    """
    try:
        yield
    except FileNotFoundError:
        raise kind(f"{path}: {missing}") from None
    except OSError as error:
        raise kind(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise kind(f"{path}: not UTF-8 text (byte {error.start + 1}); save it as UTF-8") from None


def read_text_file(path: Path | str, kind: type[FedragError], missing: str = "no such file") -> str:
    """Read a text file that a person wrote: some editors put a byte order mark before it.

    Args:
        path: The file.
        kind: The error to raise.
        missing: What to say if there is no file.

    Raises:
        FedragError: Of the kind: the file cannot be read, or is not UTF-8.
    """
    with reading_errors(path, kind, missing):
        return Path(path).read_text(encoding="utf-8-sig")


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
