"""The models that were fetched to this machine: fedrag loads no others.

Each model is a folder below `FEDRAG_HOME/models` with a `manifest.json`, which records its origin and the hash of its
tensors. The hash is over tensors, not files: the same weights have the same hash in one file or in several.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args

from safetensors import SafetensorError, safe_open

from fedrag.errors import ConfigError, ModelError

ModelKind = Literal["causal", "seq2seq", "encoder"]
MODEL_KINDS: tuple[ModelKind, ...] = get_args(ModelKind)
MANIFEST = "manifest.json"

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class FetchedModel:
    """A model on this machine, and its origin."""

    name: str
    kind: ModelKind
    folder: Path
    source: str
    """`hub:ID@REVISION`, `pypi:PACKAGE==VERSION`, `path:FOLDER` or `random`."""
    licence: str
    tensors_sha256: str
    fetched_at: str
    """UTC, ISO 8601."""

    @property
    def revision(self) -> str | None:
        """The hub's revision from which it was fetched, or None: it came from elsewhere.

        >>> FetchedModel("a/b", "causal", Path("x"), "hub:a/b@4f2c", "mit", "", "").revision
        '4f2c'
        """
        scheme, _, origin = self.source.partition(":")
        return origin.rpartition("@")[2] if scheme == "hub" and "@" in origin else None


@dataclass(frozen=True)
class TensorEntry:
    """The position of a tensor in a safetensors file."""

    folder: str
    """Folder of the file, relative to the model's, since tensors of different modules may share a name."""
    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int


def fedrag_home() -> Path:
    """Return the folder of fedrag's own files: `$FEDRAG_HOME`, or `~/.cache/fedrag`.

    Raises:
        ConfigError: There is no home folder.
    """
    try:
        return Path(os.environ.get("FEDRAG_HOME") or "~/.cache/fedrag").expanduser().absolute()
    except RuntimeError:
        raise ConfigError("no home folder is known here; set FEDRAG_HOME to a folder for the models") from None


def model_folder(name: str) -> Path:
    """Return the folder for a model of this name.

    Raises:
        ModelError: The name is not of the form `name` or `owner/name`.
    """
    if not _NAME.fullmatch(name) or "--" in name or ".." in name:
        raise ModelError(f'"{name}" is not a model name: expected NAME or OWNER/NAME, as on the model hub')
    return fedrag_home() / "models" / name.replace("/", "--")


def fetched_models() -> list[FetchedModel]:
    """Return all fetched models, sorted by name.

    Raises:
        ModelError: A manifest cannot be read.
    """
    manifests = (fedrag_home() / "models").glob(f"*/{MANIFEST}")
    models = (read_manifest(path) for path in manifests if not path.parent.name.startswith("."))
    return sorted(models, key=lambda model: model.name)


def find_model(name: str, kind: ModelKind | None = None) -> FetchedModel:
    """Return a fetched model by its name, or by the local folder from which it was fetched.

    Raises:
        ModelError: It is not fetched, or of another kind.
    """
    models = fetched_models()
    source = f"path:{Path(name).expanduser().resolve()}"
    found = [model for model in models if name == model.name] or [m for m in models if source == m.source]
    if not found:
        raise ModelError(_not_fetched(name, [model.name for model in models]))
    if kind is not None and found[0].kind != kind:
        raise ModelError(f"{name} is of kind {found[0].kind}, but a model of kind {kind} is needed here")
    return found[0]


def verify_model(model: FetchedModel) -> None:
    """Check that a model's tensors are those that were fetched.

    Raises:
        ModelError: The tensors were altered or cannot be read.
    """
    try:
        found = hash_tensors(model.folder)
    except ModelError as error:
        raise ModelError(f"{error}; run: {fetch_command(model)}") from None
    if found != model.tensors_sha256:
        raise ModelError(
            f"{model.name} is not the model that was fetched: its tensors hash to {found[:16]}, "
            f"expected {model.tensors_sha256[:16]} ({model.folder}); run: {fetch_command(model)}"
        )


def hash_tensors(folder: Path) -> str:
    """Return the sha256 over the sorted (folder, name, dtype, shape, bytes) of all tensors below a folder.

    Raises:
        ModelError: There are no safetensors, or a file is damaged.
    """
    digest = hashlib.sha256()
    for entry in sorted(read_tensor_entries(folder), key=lambda e: (e.folder, e.name, e.file.name)):
        digest.update(f"{entry.folder}\0{entry.name}\0{entry.dtype}\0{entry.shape}\0".encode())
        if entry.end > entry.start:
            with (
                entry.file.open("rb") as stream,
                mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
            ):
                digest.update(memoryview(data)[entry.start : entry.end])
    return digest.hexdigest()


def count_parameters(folder: Path) -> int:
    """Return the number of weights in a model folder."""
    return sum(prod(entry.shape) for entry in read_tensor_entries(folder))


def read_tensor_entries(folder: Path) -> list[TensorEntry]:
    """Return the tensors of all safetensors files below a folder, without reading their values.

    Raises:
        ModelError: There are no safetensors, or a file is damaged.
    """
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        pickles = "; weights in other formats (.bin, .pt, .gguf) are not loaded" if folder.is_dir() else ""
        raise ModelError(f"{folder}: holds no weights: expected at least one *.safetensors file{pickles}")
    return [entry for file in files for entry in _entries_of_file(file, folder)]


def read_manifest(path: Path) -> FetchedModel:
    """Read a model's manifest file.

    Raises:
        ModelError: It is missing or damaged.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return FetchedModel(folder=path.parent, **fields)
    except (OSError, ValueError, TypeError) as error:
        name = path.parent.name.replace("--", "/")
        raise ModelError(f"{path}: not a readable manifest ({error}); run: fedrag models fetch {name}") from None


def fetch_command(model: FetchedModel) -> str:
    """Return the command that fetches a model again."""
    scheme, _, origin = model.source.partition(":")
    if scheme == "path":
        return f"fedrag models fetch {origin} --source path --name {model.name} --force"
    return f"fedrag models fetch {model.name} --force"


def write_manifest(model: FetchedModel) -> None:
    """Write a model's manifest into its folder."""
    fields = {key: value for key, value in asdict(model).items() if key != "folder"}
    (model.folder / MANIFEST).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def _entries_of_file(file: Path, folder: Path) -> Iterator[TensorEntry]:
    """Parse the header of one safetensors file, after the library has checked the file."""
    try:
        with safe_open(file, framework="numpy"):
            pass
        with file.open("rb") as stream:
            header_size = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(header_size))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file}: damaged or incomplete: {error}") from None
    where = file.parent.relative_to(folder).as_posix()
    for name, tensor in header.items():
        if name != "__metadata__":
            start, end = (8 + header_size + offset for offset in tensor["data_offsets"])
            yield TensorEntry(where, name, tensor["dtype"], tuple(tensor["shape"]), file, start, end)


def _not_fetched(name: str, known: list[str]) -> str:
    command = f"{name} --source path" if Path(name).expanduser().is_dir() else name
    sentence = f"{name} is not among the fetched models; run: fedrag models fetch {command}"
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"{sentence} (nearest fetched: {nearest[0]})" if nearest else sentence
