"""What identifies a base model: each part alone, and nothing that changes no computation."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from fedrag.errors import ModelError
from fedrag.types import IDENTITY_PARTS, ModelIdentity
from fedrag.weights.identity import folder_identity, identity_of
from fedrag.weights.store import ModelKind, find_model

KINDS: dict[str, ModelKind] = {"causal": "causal", "seq2seq": "seq2seq", "encoder": "encoder"}


@pytest.fixture
def copy_of(tiny_home: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a tiny model and returns the copy's folder."""

    def copy(kind: str) -> Path:
        return Path(shutil.copytree(find_model(f"fedrag/tiny-{kind}").folder, tmp_path / kind))

    return copy


def edit(file: Path, *removed: str, **changes: object) -> None:
    values = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({name: v for name, v in (values | changes).items() if name not in removed}))


def differences(folder: Path) -> list[str]:
    """Return in which parts the copy of a tiny model differs from the model."""
    model = find_model(f"fedrag/tiny-{folder.name}")
    return identity_of(model).differences(folder_identity(folder, model.kind, model.tensors_sha256))


def test_each_part_is_a_hash_and_the_tensors_are_those_of_the_manifest(tiny_home: Path) -> None:
    for kind in KINDS:
        model = find_model(f"fedrag/tiny-{kind}")
        identity = identity_of(model)
        assert identity.tensors == model.tensors_sha256
        assert all(len(getattr(identity, part)) == 64 for part in IDENTITY_PARTS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_the_same_model(copy_of: Callable[[str], Path], kind: str) -> None:
    assert differences(copy_of(kind)) == []


def test_other_tensors_are_named_alone(tiny_home: Path) -> None:
    model = find_model("fedrag/tiny-causal")
    assert identity_of(model).differences(folder_identity(model.folder, "causal", "0" * 64)) == ["tensors"]


# Each part alone


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}"),
        lambda folder: (folder / "chat_template.jinja").unlink(),
    ],
)
def test_another_chat_template_is_named_alone(copy_of: Callable[[str], Path], change: Callable[[Path], object]) -> None:
    folder = copy_of("causal")
    change(folder)
    assert differences(folder) == ["chat template"]


def test_another_word_in_the_vocabulary_is_named_alone(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("causal")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["A"], words["B"] = words["B"], words["A"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert differences(folder) == ["tokenizer"]


def test_another_end_token_of_the_tokenizer_is_named_alone(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("causal")
    edit(folder / "tokenizer_config.json", eos_token="<|endoftext|>")
    assert differences(folder) == ["tokenizer"]


@pytest.mark.parametrize(
    ("kind", "file", "changes"),
    [
        ("causal", "config.json", {"rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}}),
        ("causal", "config.json", {"rms_norm_eps": 1e-5}),
        ("causal", "config.json", {"sliding_window": 16}),
        ("causal", "generation_config.json", {"eos_token_id": [2, 0]}),
        ("causal", "generation_config.json", {"no_repeat_ngram_size": 3}),
        ("seq2seq", "config.json", {"dropout_rate": 0.3}),
        ("encoder", "config.json", {"layer_norm_eps": 1e-5}),
        ("encoder", "1_Pooling/config.json", {"pooling_mode": "cls"}),
        ("encoder", "1_Pooling/config.json", {"include_prompt": False}),
        ("encoder", "sentence_bert_config.json", {"max_seq_length": 32}),
        ("encoder", "sentence_bert_config.json", {"do_lower_case": True}),
        ("encoder", "config_sentence_transformers.json", {"similarity_fn_name": "dot"}),
    ],
)
def test_another_configuration_is_named_alone(
    copy_of: Callable[[str], Path], kind: str, file: str, changes: dict[str, object]
) -> None:
    folder = copy_of(kind)
    edit(folder / file, **changes)
    assert differences(folder) == ["configuration"]


def test_a_module_that_is_left_out_is_another_configuration(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("encoder")
    (folder / "modules.json").write_text(json.dumps(json.loads((folder / "modules.json").read_text())[:2]))
    assert differences(folder) == ["configuration"]


@pytest.mark.parametrize(
    "changes",
    [
        {"prompts": {"query": "query: ", "document": "passage: "}},
        {"prompts": {"query": "", "document": "", "sts": "compare: "}, "default_prompt_name": "sts"},
    ],
)
def test_other_prompts_are_named_alone(copy_of: Callable[[str], Path], changes: dict[str, object]) -> None:
    folder = copy_of("encoder")
    edit(folder / "config_sentence_transformers.json", **changes)
    assert differences(folder) == ["prompts"]


# What may differ


@pytest.mark.parametrize(
    ("kind", "file", "changes"),
    [
        ("causal", "config.json", {"_name_or_path": "elsewhere", "transformers_version": "4.1.0", "dtype": "bfloat16"}),
        ("causal", "config.json", {"torch_dtype": "float16", "use_cache": False, "architectures": ["Llama"]}),
        ("causal", "config.json", {"attention_bias": False, "initializer_range": 0.02}),
        ("causal", "generation_config.json", {"temperature": 0.2, "do_sample": True, "transformers_version": "4.1.0"}),
        ("causal", "tokenizer_config.json", {"name_or_path": "elsewhere", "model_max_length": 10**30}),
        ("encoder", "config.json", {"_name_or_path": "elsewhere", "id2label": {"0": "no", "1": "yes"}}),
        (
            "encoder",
            "config_sentence_transformers.json",
            {"__version__": {}, "prompts": {}, "similarity_fn_name": None},
        ),
    ],
)
def test_what_changes_no_computation_does_not_count(
    copy_of: Callable[[str], Path], kind: str, file: str, changes: dict[str, object]
) -> None:
    folder = copy_of(kind)
    edit(folder / file, **changes)
    assert differences(folder) == []


def test_settings_at_their_defaults_may_be_left_out(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("causal")
    edit(folder / "config.json", "attention_bias", "attention_dropout", "hidden_act", "mlp_bias", "use_cache")
    (folder / "generation_config.json").unlink()
    assert differences(folder) == []


def test_how_rows_were_cut_and_padded_last_is_not_of_the_tokenizer(copy_of: Callable[[str], Path]) -> None:
    """It stays in tokenizer.json when a model is saved after use."""
    folder = copy_of("encoder")
    cut = {"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0}
    edit(folder / "tokenizer.json", truncation=cut)
    assert differences(folder) == []


def test_older_spellings_of_an_encoders_modules_are_the_same_model(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("encoder")
    modules = json.loads((folder / "modules.json").read_text())
    names = [module["type"].rpartition(".")[2] for module in modules]
    old = [module | {"type": f"sentence_transformers.models.{n}"} for module, n in zip(modules, names, strict=True)]
    (folder / "modules.json").write_text(json.dumps(old))
    modes = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32} | modes))
    (folder / "2_Normalize" / "config.json").unlink()
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64, "do_lower_case": False}))
    (folder / "config_sentence_transformers.json").write_text("{}")
    assert differences(folder) == []


@pytest.mark.parametrize(("kind", "library"), [("causal", AutoModelForCausalLM), ("seq2seq", AutoModelForSeq2SeqLM)])
def test_a_generator_that_was_loaded_and_saved_is_the_same_model(
    tiny_home: Path, tmp_path: Path, kind: str, library: type
) -> None:
    source = find_model(f"fedrag/tiny-{kind}").folder
    library.from_pretrained(source).save_pretrained(tmp_path / kind)
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / kind)
    assert differences(tmp_path / kind) == []


def test_an_encoder_that_was_used_and_saved_is_the_same_model(tiny_home: Path, tmp_path: Path) -> None:
    encoder = SentenceTransformer(str(find_model("fedrag/tiny-encoder").folder), device="cpu")
    encoder.encode(["A text, and one that is longer", "A text"])
    encoder.save(str(tmp_path / "encoder"), create_model_card=False)
    assert differences(tmp_path / "encoder") == []


def test_an_encoder_without_modules_is_what_sentence_transformers_makes_of_it(copy_of, tmp_path: Path) -> None:
    plain, saved = copy_of("encoder"), tmp_path / "saved"
    for file in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        (plain / file).unlink()
    SentenceTransformer(str(plain), device="cpu").save(str(saved), create_model_card=False)
    assert (saved / "modules.json").is_file()
    found = [folder_identity(folder, "encoder", "0" * 64) for folder in (plain, saved)]
    assert found[0].differences(found[1]) == []
    assert differences(plain) == ["configuration"]  # the tiny encoder makes its vectors of length 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["HuggingFaceTB/SmolLM2-135M-Instruct", "sentence-transformers/all-MiniLM-L6-v2"])
def test_the_real_models_loaded_and_saved_are_the_same(real_models: Path, tmp_path: Path, name: str) -> None:
    model = find_model(name)
    if model.kind == "encoder":
        SentenceTransformer(str(model.folder), device="cpu").save(str(tmp_path), create_model_card=False)
    else:
        AutoModelForCausalLM.from_pretrained(model.folder).save_pretrained(tmp_path)
        AutoTokenizer.from_pretrained(model.folder).save_pretrained(tmp_path)
    saved = folder_identity(tmp_path, model.kind, model.tensors_sha256)
    assert identity_of(model).differences(saved) == []


# Reading


def test_an_edit_shows_at_once_though_the_identity_is_remembered(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("causal")
    assert differences(folder) == []
    template = folder / "chat_template.jinja"
    text = template.read_text()
    template.write_text(text.replace("assistant", "Assistant"))  # as long as before
    os.utime(template, ns=(1, template.stat().st_mtime_ns + 1))
    assert differences(folder) == ["chat template"]


def test_files_that_cannot_be_read_are_named(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("causal")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=f"^{folder}: its tokenizer or configuration cannot be read: "):
        folder_identity(folder, "causal", "0" * 64)


def test_parts_are_named_in_the_order_of_their_importance() -> None:
    assert ModelIdentity(*"abcde").differences(ModelIdentity(*"vwxyz")) == [
        "tensors",
        "tokenizer",
        "chat template",
        "configuration",
        "prompts",
    ]
