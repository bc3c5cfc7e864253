"""The model card: valid metadata, counts, figures with their intervals, and no more about the sites than is allowed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from fedrag.exporting.hub_card import write_hub_card
from fedrag.exporting.trained_system import TrainedSystem
from fedrag.reporting.arms import overall_lines
from fedrag.reporting.verdict import percent


def card_of(system: TrainedSystem, folder: Path, *, merged: bool = False, **options: bool) -> ModelCard:
    adapter = folder / "generator" / "adapter_config.json"
    if not merged:
        adapter.parent.mkdir(exist_ok=True)
        adapter.write_text("{}", encoding="utf-8")
    write_hub_card(folder, system, **options)
    return ModelCard.load(folder / "README.md")


def test_its_metadata_is_what_the_model_hub_reads(system: TrainedSystem, tmp_path: Path) -> None:
    data = card_of(system, tmp_path).data
    assert data.base_model == ["fedrag/tiny-causal", "fedrag/tiny-encoder"]
    assert (data.license, data.library_name, data.model_name) == ("apache-2.0", "peft", "measured-1")
    results = {result.metric_type: result.metric_value for result in data.eval_results}
    means = {line.label: line.means["federated"] for line in overall_lines(system.scores)}
    assert results["mrr"] == round(100 * means["MRR"], 1) > 0
    assert set(results) == {"exact_match", "f1", "rouge_l", "recall_at_1", "recall_at_5", "mrr", "ndcg_at_10"}


@pytest.mark.parametrize(
    ("trained", "merged", "library"),
    [
        (("generator",), False, "peft"),
        (("generator", "retriever"), True, "transformers"),
        (("retriever",), False, "sentence-transformers"),
    ],
)
def test_it_names_the_library_that_loads_what_is_there(system, tmp_path: Path, trained, merged, library) -> None:
    part = replace(system, state={name: system.state[name] for name in trained}, scores={})
    card = card_of(part, tmp_path, merged=merged)
    assert card.data.library_name == library
    assert card.data.eval_results is None
    assert "Nothing was measured" in card.text


def test_it_counts_the_data_and_shows_figures_with_intervals(system: TrainedSystem, tmp_path: Path) -> None:
    text = card_of(system, tmp_path).text
    assert "| 2 sites | 32 | 32 | 32 | 8 |" in text
    [line] = [line for line in overall_lines(system.scores) if line.label == "MRR"]
    difference = line.differences["untouched"]
    assert difference is not None
    shown = [percent(value, sign=True) for value in (difference.mean_difference, difference.low, difference.high)]
    assert f"{shown[0]} ({shown[1]} to {shown[2]})" in text
    assert "random models, made for tests" in text
    assert "No noise" in text


def test_the_sites_are_named_only_where_that_is_allowed(system: TrainedSystem, tmp_path: Path) -> None:
    assert not {"north", "south"} & set(card_of(system, tmp_path).content.split())
    named = card_of(system, tmp_path, site_names=True).content
    assert "| north | 16 |" in named
    assert "| south | 16 |" in named


def test_it_holds_no_path_of_this_machine(system: TrainedSystem, tmp_path: Path) -> None:
    content = card_of(system, tmp_path, site_names=True).content
    assert str(system.config.data.sites) not in content
    assert str(Path.home()) not in content


def test_licences_that_differ_are_both_named(system: TrainedSystem, tmp_path: Path, monkeypatch) -> None:
    base = TrainedSystem.base
    licences = {"generator": "mit", "retriever": "apache-2.0"}
    monkeypatch.setattr(TrainedSystem, "base", lambda self, key: replace(base(self, key), licence=licences[key]))
    data = card_of(system, tmp_path).data
    assert (data.license, data.to_dict()["license_name"]) == ("other", "apache-2.0 and mit")
