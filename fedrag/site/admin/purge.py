"""Finds and removes what runs leave at a site."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fedrag.errors import ConfigError
from fedrag.files import storage_errors
from fedrag.retrieval.index_cache import INDEXES
from fedrag.site.client_folder import INBOX, OUTBOX, SECURE
from fedrag.site.delivery import MODELS, deliveries, remove_deliveries
from fedrag.site.site_paths import DIAGNOSIS_ANSWERS, SCORES
from fedrag.text import size_text

LOGS = "logs"
SUMS = ".json"
"""Ending of the lists of secure sums that a site took part in: who forgets one could mask a second time under it."""

KEPT = (
    "It keeps the keys, site.toml and peers.json, with which this site takes part; egress.jsonl, which proves what has "
    "left the site; privacy.jsonl, which says what is spent of epsilon; requests.jsonl and the lists of sums in "
    "secure, which protect it from requests that come again.",
)
"""What is never removed, and why."""


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What runs left at a site.

    Attributes:
        runs: Runs whose models are here, even in part.
        models: The folders of their models.
        cache: Files of answer scores.
        answers: Files of answers that a diagnosis generated.
        masks: What is kept of masked replies, until the sum is opened.
        indexes: Files of indexes.
        logs: Log files.
        messages: The last request and the reply to it, which may hold an update.
    """

    runs: tuple[str, ...]
    models: tuple[Path, ...]
    cache: tuple[Path, ...]
    indexes: tuple[Path, ...]
    logs: tuple[Path, ...]
    messages: tuple[Path, ...] = ()
    answers: tuple[Path, ...] = ()
    masks: tuple[Path, ...] = ()

    @property
    def lines(self) -> list[str]:
        """A line per kind of leftover, with its size."""
        models = [f"models of {run}: {size_text(_bytes(self._files_of(run)))}" for run in self.runs]
        others = {
            "answer scores, which a run computes anew": self.cache,
            "answers of a diagnosis, which are generated anew": self.answers,
            "indexes of the passages, which are made anew": self.indexes,
            "logs": self.logs,
            "the last request and the reply to it": self.messages,
            "masks of a secure sum, without which this site reveals nothing of an open round": self.masks,
        }
        return models + [f"{what}: {size_text(_bytes(files))}" for what, files in others.items() if files]

    def _files_of(self, run: str) -> list[Path]:
        folders = [folder for folder in self.models if _run_of(folder) == run]
        return [file for folder in folders for file in _files(folder)]


def find_leftovers(folder: Path, run: str | None = None) -> Leftovers:
    """Find what runs left. Caches and logs belong to all runs, so they count whichever run is named.

    Args:
        folder: The site's folder.
        run: The run; None: all runs.

    Raises:
        ConfigError: There is no such run.
        RunError: The list of the deliveries cannot be read.
    """
    path = folder / MODELS
    found = sorted(entry for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else []
    runs = sorted({*map(_run_of, found), *(delivery.run for delivery in deliveries(folder))})
    if run is not None and run not in runs:
        raise ConfigError(f"{folder}: no models of a run {run!r}; there are: {', '.join(runs) or 'none'}")
    chosen = tuple(runs) if run is None else (run,)
    return Leftovers(
        runs=chosen,
        models=tuple(entry for entry in found if _run_of(entry) in chosen),
        cache=tuple(_files(folder / SCORES)),
        indexes=tuple(_files(folder / INDEXES)),
        logs=tuple(file for file in _files(folder / LOGS) if file.stat().st_size),
        messages=tuple(_messages(folder)) if run is None else (),
        answers=tuple(_files(folder / DIAGNOSIS_ANSWERS)),
        masks=tuple(file for file in _files(folder / SECURE) if file.suffix != SUMS) if run is None else (),
    )


def remove(folder: Path, leftovers: Leftovers) -> None:
    """Remove what runs left, first from the list of deliveries, so that no removed models are ever current.

    The folders and log files that a running site uses stay, empty.

    Raises:
        StorageError: Something cannot be removed.
    """
    with storage_errors(folder):
        remove_deliveries(folder, leftovers.runs)
        for path in leftovers.models:
            shutil.rmtree(path)
        for file in (*leftovers.cache, *leftovers.answers, *leftovers.indexes, *leftovers.messages, *leftovers.masks):
            file.unlink(missing_ok=True)
        for file in leftovers.logs:
            os.truncate(file, 0)


def _run_of(folder: Path) -> str:
    """Return the run of a folder of models, whole or left partial by a crash.

    >>> _run_of(Path("models/tiny-1")), _run_of(Path("models/.tiny-1.partial"))
    ('tiny-1', 'tiny-1')
    """
    return folder.name.removeprefix(".").removesuffix(".partial")


def _messages(folder: Path) -> list[Path]:
    """Return the files of messages, including those that a crash cut off."""
    names = [f"{name}{end}" for name in (INBOX, OUTBOX) for end in ("", ".partial")]
    return [folder / name for name in names if (folder / name).is_file()]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _bytes(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)
