"""Backups of a coordinator's folder."""

from __future__ import annotations

import os
import sqlite3
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from fedrag.coordinator.console_token import TOKEN_FILE
from fedrag.coordinator.operator_log import recorded, recording
from fedrag.coordinator.reverse_proxy import PROXY_FOLDER
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.errors import ConfigError
from fedrag.files import replacing_folder, storage_errors

LEFT_OUT = (
    *("logs", PROXY_FOLDER, "door", "flower", ".lock", TOKEN_FILE),
    *("superlink.db", "superlink.db-wal", "superlink.db-shm"),
)
"""What the next start makes again; "door" is the reverse proxy's folder of earlier versions."""


@recorded("backup", "file")
def back_up(folder: ServerFolder, file: Path) -> None:
    """Write a coordinator's folder without its logs into one file, even while it runs.

    The file holds private keys: its mode is 0600.

    Raises:
        ConfigError: The file exists already.
        StorageError: It cannot be written; no partial file stays.
    """
    if file.exists():
        raise ConfigError(f"{file}: exists already; a backup overwrites nothing")
    partial = file.with_name(f".{file.name}.partial")
    with storage_errors(file):
        partial.unlink(missing_ok=True)
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as archive:
                _add_all(folder.path, archive)
                raw.flush()
                os.fsync(raw.fileno())
            os.replace(partial, file)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def restore(file: Path, path: Path) -> ServerFolder:
    """Make a coordinator's folder from a backup.

    Raises:
        ConfigError: The folder is not empty, or the file is not a backup.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path}: is not empty; a backup is restored into a new folder")
    try:
        with replacing_folder(path.absolute()) as partial:
            with tarfile.open(file) as archive:
                _extract(archive, partial)
            ServerFolder.open(partial)
            os.chmod(partial, 0o700)
    except (tarfile.TarError, EOFError, FileNotFoundError) as error:
        why = str(error).partition("\n")[0].rstrip(":")  # tarfile reports every compression it tried, a line each
        raise ConfigError(f"{file}: is not a backup of a coordinator ({why})") from None
    folder = ServerFolder.open(path)
    with recording(folder.path, "restore", {"file": str(file)}):
        return folder


def _add_all(path: Path, archive: tarfile.TarFile) -> None:
    for entry in sorted(path.iterdir()):
        if entry.name not in LEFT_OUT:
            archive.add(entry, entry.name, filter=_without_partial)
    database = path / "superlink.db"
    if database.is_file():
        with tempfile.TemporaryDirectory() as copies:
            copy = Path(copies) / database.name
            source, target = sqlite3.connect(database), sqlite3.connect(copy)
            with target:
                source.backup(target)  # a consistent snapshot, while others keep writing
            source.close()
            target.close()
            archive.add(copy, database.name)


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Extract an archive; refuse members that lead out of the folder."""
    if hasattr(tarfile, "data_filter"):
        archive.extractall(folder, filter="data")
        return
    # Python 3.11.0 to 3.11.3 has no filters.
    for entry in archive.getmembers():
        paths = PurePosixPath(entry.name), PurePosixPath(entry.linkname)
        known = entry.isfile() or entry.isdir() or entry.issym() or entry.islnk()
        if not known or any(path.is_absolute() or ".." in path.parts for path in paths):
            raise tarfile.TarError(f"{entry.name} does not belong in one")
    archive.extractall(folder)


def _without_partial(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out files that are being written."""
    return None if Path(entry.name).name.startswith(".") else entry
