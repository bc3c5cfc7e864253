"""A merged generator computes what base and adapter compute; one that cannot be merged is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from model_card import run_block
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from fedrag.components.shipped import SHIPPED
from fedrag.components.state import initial_state
from fedrag.errors import ConfigError
from fedrag.exporting.trained_system import TrainedSystem
from fedrag.exporting.whole_model import check_mergeable
from fedrag.exporting.write_export import ExportOptions, export_system
from fedrag.weights.store import find_model


def test_the_merged_model_computes_as_the_adapter_on_its_base(system: TrainedSystem, tmp_path, monkeypatch) -> None:
    export_system(system, tmp_path / "adapter")
    export_system(system, tmp_path / "whole", ExportOptions(merged=True))
    base = AutoModelForCausalLM.from_pretrained(find_model("fedrag/tiny-causal").folder, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(tmp_path / "whole" / "generator")("Rye rests.", return_tensors="pt")[
        "input_ids"
    ]
    with torch.no_grad():
        untouched = base(ids).logits
        adapted = PeftModel.from_pretrained(base, tmp_path / "adapter" / "generator").eval()(ids).logits
        monkeypatch.chdir(tmp_path / "whole")
        merged = run_block(tmp_path / "whole" / "generator", "transformers")["model"].float()(ids).logits
    assert (adapted - untouched).abs().max() > 1e-3
    torch.testing.assert_close(merged, adapted, atol=1e-4, rtol=0)
    assert not (tmp_path / "whole" / "generator" / "adapter_config.json").exists()


def test_an_encoder_decoder_is_merged_too(system: TrainedSystem, random_tensors, tmp_path: Path) -> None:
    config = system.config.model_copy(
        update={"models": system.config.models.model_copy(update={"generator": "fedrag/tiny-seq2seq"})}
    )
    state = initial_state(config, ("generator",), SHIPPED)
    state["generator"] = random_tensors(state["generator"], scale=0.2)
    export_system(replace(system, config=config, state=state), tmp_path / "out", ExportOptions(merged=True))
    base = AutoModelForSeq2SeqLM.from_pretrained(find_model("fedrag/tiny-seq2seq").folder)
    merged = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out" / "generator")
    changed = [
        name for name, weight in merged.state_dict().items() if (weight.float() - base.state_dict()[name].float()).any()
    ]
    assert changed
    assert all(name.endswith(".weight") for name in changed)


def test_an_adapter_that_acts_from_the_question_on_is_refused(system: TrainedSystem, tmp_path: Path) -> None:
    generator = system.config.generator.model_copy(update={"adapter_from": "question"})
    activated = replace(system, config=system.config.model_copy(update={"generator": generator}))
    with pytest.raises(ConfigError, match="--merged: the adapter of measured-1 acts from the question on"):
        export_system(activated, tmp_path / "out", ExportOptions(merged=True))
    assert not (tmp_path / "out").exists()


def test_a_run_of_the_retriever_alone_has_nothing_to_merge(system: TrainedSystem) -> None:
    with pytest.raises(ConfigError, match="--gguf: measured-1 trained no generator"):
        check_mergeable(replace(system, state={"retriever": system.state["retriever"]}), "--gguf")
