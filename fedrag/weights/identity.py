"""The identity of a base model: a hash of each part that decides what it computes.

Two copies of a model are the same if all parts agree, however their files were written. So the hashes are over what the
libraries read from the files, without what legitimately differs: origin, versions, number format of the storage (which
counts among the tensors), settings at their defaults.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedConfig

from fedrag.errors import ModelError
from fedrag.types import ModelIdentity
from fedrag.weights.store import MANIFEST, FetchedModel, ModelKind

# Of config.json; a name with "_" before it is the library's own.
_NO_COMPUTATION = {
    *("architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "tokenizer_class"),
    *("use_cache", "gradient_checkpointing", "output_attentions", "output_hidden_states", "return_dict"),
    *("id2label", "label2id", "problem_type", "finetuning_task", "task_specific_params"),
}
# Of generation_config.json: answers are decoded greedily, up to a length that the scenario sets.
_NO_CHOICE = {
    *("do_sample", "temperature", "top_p", "top_k", "top_h", "min_p", "typical_p", "num_beams", "num_return_sequences"),
    *("max_length", "max_new_tokens", "early_stopping", "length_penalty", "cache_implementation"),
}
_PROBE = "Is 1,234.5 'a number'?\n  Größe: 北京 ☂ naïve\tfile_name.py"
_DEFAULT_MODULES = [{"type": "Transformer", "path": ""}, {"type": "Pooling"}]


def identity_of(model: FetchedModel) -> ModelIdentity:
    """Return the identity of a fetched model; only its tensors were hashed when it was fetched.

    Raises:
        ModelError: Its tokenizer or its configuration cannot be read.
    """
    return _identity(model.folder, model.kind, model.tensors_sha256, _state_of(model.folder))


def folder_identity(folder: Path, kind: ModelKind, tensors_sha256: str) -> ModelIdentity:
    """Return the identity of a model in any folder.

    Raises:
        ModelError: Its tokenizer or its configuration cannot be read.
    """
    return _identity(folder, kind, tensors_sha256, _state_of(folder))


def _state_of(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when somebody edits a small file of a model."""
    files = (path for path in sorted(folder.rglob("*")) if path.suffix != ".safetensors" and path.name != MANIFEST)
    return tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files if path.is_file())


@lru_cache(maxsize=16)
def _identity(folder: Path, kind: ModelKind, tensors_sha256: str, state: object) -> ModelIdentity:
    try:
        modules = _modules(folder) if kind == "encoder" else [{"type": "Transformer", "path": ""}]
        readers = [folder / module["path"] for module in modules if module["type"] == "Transformer"]
        tokenizers = [_load_tokenizer(reader) for reader in readers]
        configuration: list[Any] = [_settings(reader, kind) for reader in readers]
        if kind == "encoder":
            configuration += [_encoder_settings(folder, modules), _similarity(folder)]
        else:
            configuration.append(_generation_settings(folder))
        return ModelIdentity(
            tensors=tensors_sha256,
            tokenizer=_hash([_tokenizer_facts(tokenizer, folder, kind) for tokenizer in tokenizers]),
            template=_hash([tokenizer.chat_template for tokenizer in tokenizers]),
            configuration=_hash(configuration),
            prompts=_hash(_prompts(folder)),
        )
    except ModelError:
        raise
    except Exception as error:  # libraries meet a damaged file with errors of many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{folder}: its tokenizer or configuration cannot be read: {reason}") from error


def _hash(value: object) -> str:
    """Return the sha256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _load_tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _tokenizer_facts(tokenizer: Any, folder: Path, kind: ModelKind) -> dict[str, Any]:
    """Return what decides the tokens of a text, and the text of tokens."""
    facts: dict[str, Any] = {
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "ends": [tokenizer.eos_token_id, tokenizer.pad_token_id],
        "probe": tokenizer(_PROBE, verbose=False)["input_ids"],
        "spaces": bool(getattr(tokenizer, "clean_up_tokenization_spaces", False)),
    }
    if not tokenizer.is_fast:
        pieces = [path for path in sorted(folder.rglob("*")) if path.suffix == ".model" or path.name == "merges.txt"]
        pieces_sha256 = [hashlib.sha256(path.read_bytes()).hexdigest() for path in pieces]
        return facts | {"class": type(tokenizer).__name__, "words": tokenizer.get_vocab(), "pieces": pieces_sha256}
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    # How the last caller cut and padded rows stays in the file; both are set anew at each call.
    return facts | {"backend": {name: part for name, part in whole.items() if name not in ("truncation", "padding")}}


def _load_config(folder: Path) -> PreTrainedConfig:
    config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return config


def _settings(folder: Path, kind: ModelKind) -> dict[str, Any]:
    """Return what of config.json is not at its default and changes what is computed."""
    config = _load_config(folder)
    whole, defaults = (_without(told, _NO_COMPUTATION) for told in (config.to_dict(), _defaults(type(config))))
    told = {name: value for name, value in whole.items() if name not in defaults or value != defaults[name]}
    return {**told, "model_type": config.model_type, "kind": kind}


def _defaults(architecture: type[PreTrainedConfig]) -> dict[str, Any]:
    try:
        return architecture().to_dict()
    except (TypeError, ValueError):  # one made of two others has none
        return {}


def _without(values: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """Leave out settings, also from the tables within."""
    return {
        name: _without(value, names) if isinstance(value, dict) else value
        for name, value in values.items()
        if name not in names and not str(name).startswith("_")
    }


def _generation_settings(folder: Path) -> dict[str, Any]:
    """Return what of a generator's own settings can change a greedy answer."""
    if (folder / "generation_config.json").is_file():
        settings = GenerationConfig.from_pretrained(folder, local_files_only=True)
    else:
        settings = GenerationConfig.from_model_config(_load_config(folder))
    return _without(settings.to_diff_dict(), _NO_COMPUTATION | _NO_CHOICE)


def _modules(folder: Path) -> list[dict[str, str]]:
    """Return type and path of a sentence-transformers model's modules; another encoder gets the usual two."""
    path = folder / "modules.json"
    if not path.is_file():
        return _DEFAULT_MODULES
    listed = json.loads(path.read_text(encoding="utf-8"))
    return [{"type": module["type"].rpartition(".")[2], "path": module["path"]} for module in listed]


def _encoder_settings(folder: Path, modules: list[dict[str, str]]) -> list[Any]:
    """Return the modules of an encoder, in order, each with its settings."""
    return [[module["type"], dict(_module_settings(folder, module))] for module in modules]


def _module_settings(folder: Path, module: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    if module["type"] == "Transformer":
        yield from _reading(folder / module["path"])
    elif module["type"] == "Pooling":
        settings: dict[str, Any] = {}
        if "path" in module:  # the library knows the older spellings
            settings = Pooling.load_config(str(folder), subfolder=module["path"], local_files_only=True)
        yield "pooling_mode", settings.get("pooling_mode", "mean")
        yield "include_prompt", settings.get("include_prompt", True)
    else:
        settings = _read_json(folder / module["path"] / "config.json")
        yield from ((name, value) for name, value in settings.items() if value != "sentence_embedding")


def _reading(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield how many tokens of a text an encoder reads, and whether in small letters."""
    for path in sorted(folder.glob("sentence_*_config.json")):
        settings = _read_json(path)
        if settings.get("do_lower_case"):
            yield "do_lower_case", True
        if settings.get("max_seq_length"):
            yield "max_seq_length", settings["max_seq_length"]
            return
    positions = getattr(_load_config(folder), "max_position_embeddings", None)
    longest = _load_tokenizer(folder).model_max_length
    yield "max_seq_length", min(longest, positions) if isinstance(positions, int) else longest


def _similarity(folder: Path) -> str:
    """Return the function by which a sentence-transformers model compares vectors."""
    return _read_json(folder / "config_sentence_transformers.json").get("similarity_fn_name") or "cosine"


def _prompts(folder: Path) -> dict[str, Any]:
    """Return a sentence-transformers model's prompts that are not empty, and the name of the default one.

    A generator has none: what it is told by default stands in its chat template.
    """
    settings = _read_json(folder / "config_sentence_transformers.json")
    prompts = {name: text for name, text in (settings.get("prompts") or {}).items() if text}
    return {"prompts": prompts, "default": settings.get("default_prompt_name")}


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file() or not path.stat().st_size:
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ModelError(f"{path}: expected a JSON object")
    return found
