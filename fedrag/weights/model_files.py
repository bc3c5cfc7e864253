"""Checks a model folder by its files alone: no weights are loaded and none of its code runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING

from fedrag.errors import ModelError
from fedrag.weights.store import MANIFEST, ModelKind, read_tensor_entries

MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
"""Weights, configuration, tokenizer. Never code (.py), never pickles (.bin, .pt)."""

OTHER_COPIES = ("original/*", "onnx/*", "openvino/*", "consolidated*")
"""Copies of the same weights for other programs."""


def copy_model_files(source: Path, target: Path) -> None:
    """Copy only the files of a model from one folder to another."""
    for file in sorted(source.rglob("*")):
        path = file.relative_to(source)
        if file.is_file() and is_model_file(path.as_posix()):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / path)


def is_model_file(path: str) -> bool:
    """Return whether a file, by its path below the model's folder, belongs to the model.

    >>> [is_model_file(p) for p in ("1_Pooling/config.json", "pytorch_model.bin", "onnx/config.json")]
    [True, False, False]
    """
    if path == MANIFEST or any(part.startswith(".") for part in path.split("/")):
        return False
    return any(fnmatch(path, p) for p in MODEL_FILES) and not any(fnmatch(path, p) for p in OTHER_COPIES)


def check_model_folder(folder: Path, kind: ModelKind | None = None) -> ModelKind:
    """Check that a folder holds a complete model that needs no code of its own, and return its kind.

    Args:
        folder: The model's folder.
        kind: The kind according to the user; it decides if the configuration does not tell.

    Raises:
        ModelError: A file is missing or damaged, it needs remote code, or it is of another kind.
    """
    configs = {path: _read_json(path) for path in sorted(folder.rglob("config.json"))}
    if not configs:
        raise ModelError(f"{folder}: not a model folder: it has no config.json")
    refuse_adapters(folder)
    read_tensor_entries(folder)
    _check_shards(folder)
    for path, config in configs.items():
        if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
            raise ModelError(
                f"{path}: model type {config.get('model_type')!r} runs code that comes with the model "
                "(auto_map); fedrag loads models without remote code only"
            )
    config = configs.get(folder / "config.json", {})
    found = _detect_kind(folder, config) or kind
    if found is None:
        raise ModelError(
            f"{folder}: architecture {_architecture(config)!r} is not known as causal, seq2seq or encoder; "
            "say which with --kind"
        )
    if kind not in (None, found):
        raise ModelError(f"{folder}: expected a model of kind {kind}, found {found}")
    return found


def refuse_adapters(folder: Path) -> None:
    """Refuse an adapter in place of a model, or beside one: transformers would load it without a word.

    Raises:
        ModelError: There is one.
    """
    for path in sorted(folder.rglob("adapter_config.json")):
        raise ModelError(
            f"{path}: this is an adapter, no whole model, or one left beside a model; merge it into its base "
            "(PEFT's merge_and_unload), or remove adapter_config.json and adapter_model.safetensors"
        )


def read_licence(folder: Path) -> str:
    """Return the licence in the front matter of a folder's README.md, or "unknown"."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown"
    front_matter = text.split("---", 2)[1] if text.startswith("---") else ""
    match = re.search(r"^license:\s*([\w.+-]+)\s*$", front_matter, re.MULTILINE)
    return match[1] if match else "unknown"


def _detect_kind(folder: Path, config: dict[str, Any]) -> ModelKind | None:
    if (folder / "modules.json").exists():
        _check_modules(folder / "modules.json")
        return "encoder"
    architecture = _architecture(config)
    if "vision_config" in config or "audio_config" in config:
        return None
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal"
    if architecture.endswith("EncoderModel"):
        return "encoder"
    if config.get("is_encoder_decoder") or architecture.endswith("ForConditionalGeneration"):
        return "seq2seq"
    return "encoder" if architecture.endswith(("Model", "ForMaskedLM", "ForPreTraining")) else None


def _architecture(config: dict[str, Any]) -> str:
    return str((config.get("architectures") or ["none"])[0])


def _check_modules(path: Path) -> None:
    """Refuse a sentence-transformers model that has modules of its own."""
    for module in _read_json(path):
        if not str(module.get("type", "")).startswith("sentence_transformers."):
            raise ModelError(
                f"{path}: module {module.get('type')!r} runs code that comes with the model; "
                "fedrag loads models without remote code only"
            )


def _check_shards(folder: Path) -> None:
    """Refuse a model with missing weights."""
    for index in folder.rglob("*.safetensors.index.json"):
        missing = sorted(name for name in _shards(index) if not (index.parent / name).exists())
        if missing:
            raise ModelError(f"{index}: lists {missing[0]}, which is not there: the weights are incomplete")


def _shards(index: Path) -> Iterator[str]:
    yield from set(_read_json(index).get("weight_map", {}).values())


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not valid JSON: {error}") from None
