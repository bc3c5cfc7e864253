"""The scenario: strict, complete, and written out as it was read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from fedrag.config.run_settings import FederationConfig
from fedrag.config.scenario import Config
from fedrag.config.schedule import components_of, rounds_training, trained_components
from fedrag.config.training_settings import GeneratorConfig, RetrieverConfig
from fedrag.errors import ConfigError

SCENARIOS = sorted((Path(__file__).parents[2] / "simulations" / "scenarios").glob("*.toml"))
SMALLEST = 'name = "a"\n[data]\nsites = "x"\n'


def config_of(*overrides: str) -> Config:
    return Config.from_toml(SMALLEST, overrides=overrides)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_parses_and_is_named_as_its_file(path):
    config = Config.from_file(path)
    assert config.name == path.stem
    assert Config.from_toml(config.to_toml()) == config


def test_there_are_scenarios():
    assert SCENARIOS


def test_a_scenario_needs_a_name_and_sites_alone():
    config = config_of()
    assert (config.name, config.data.sites, config.seed) == ("a", "x", 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[data]\nsites = "x"', "name is missing"),
        ('name = "a"', r"data(\.sites)? is missing"),
        ('name = "a"\n[data]', "data.sites is missing"),
        ('name = "A b"\n[data]\nsites = "x"', "name = 'A b': "),
        ('name = "a"\nname = "b"', "not valid TOML"),
        ("name = ", "not valid TOML"),
    ],
)
def test_what_is_missing_or_no_toml_is_said_in_one_sentence(text, message):
    with pytest.raises(ConfigError, match=f"^my.toml: {message}") as caught:
        Config.from_toml(text, "my.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("federation.round", "federation.rounds"),
        ("generator.learning_rat", "generator.learning_rate"),
        ("generator.lora.ranks", "generator.lora.rank"),
        ("retriever.lsr.tau_l", "retriever.lsr.tau_lm"),
        ("sed", "seed"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(key, nearest):
    with pytest.raises(ConfigError, match=rf"^scenario: unknown key {key} \(nearest known: {nearest}\)$"):
        config_of(f"{key}=1")


def test_an_unknown_key_like_no_known_one_is_answered_with_what_its_section_has():
    with pytest.raises(ConfigError, match=r"unknown key evaluation.arms.federated \(known there: local, pooled\)$"):
        config_of("evaluation.arms.federated.generator.learning_rate=1")


@pytest.mark.parametrize(
    "override",
    [
        "federation.rounds=0",
        "federation.rounds=1.5",
        "federation.fraction=0.0",
        "federation.fraction=1.01",
        "federation.quorum=0.0",
        "federation.proximal_mu=-0.1",
        "federation.schedule=both",
        "federation.components=reranker",
        "federation.max_update_norm=1e10",
        "generator.learning_rate=0.0",
        "generator.learning_rate=-1e-3",
        "generator.learning_rate=nan",
        "generator.learning_rate=inf",
        "generator.warmup=1.5",
        "generator.raft_drop=-0.1",
        "generator.epochs=0",
        "generator.batch_size=0",
        "generator.lora.rank=0",
        "generator.lora.alpha=0.0",
        "retriever.weights=qlora",
        "retriever.lsr.candidates=1",
        "retriever.lsr.tau_lm=0.0",
        "retriever.lsr.tau_r=-1.0",
        "retriever.contrastive.scale=0",
        "retriever.contrastive.scale=automatic",
        "retriever.contrastive.scale=true",
        "retriever.contrastive.scale=inf",
        "retriever.similarity=euclidean",
        "retriever.truncate_dim=-1",
        "rag.chunk_tokens=-1",
        "retriever.lsr.divergence=backward",
        "retriever.contrastive.side=passage",
        "rag.passages=-1",
        "seed=-1",
        "evaluation.split=dev",
        "simulation.gpus_per_actor=1.5",
    ],
)
def test_a_value_out_of_range_is_refused_with_its_key(override):
    key = override.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"^scenario: {key} = .*: \S") as caught:
        config_of(override)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("rag.passages=2", "rag.passages_per_prompt=3"), "passages_per_prompt is larger than rag.passages"),
        (("federation.schedule=staged", "federation.rounds=2", "federation.stage_rounds=2"), "stage_rounds must be"),
        (("federation.schedule=alternate", "federation.rounds=1"), "needs federation.rounds of at least 2"),
        (("rag.chunk_tokens=32",), "rag.chunk_overlap must be smaller than rag.chunk_tokens"),
        (('data.only=["a"]', 'data.hold_out=["a", "b"]'), "leaves none of the sites"),
        (("generator.adapter_from=question", "generator.activation_checkpointing=on"), "does not work with"),
    ],
)
def test_a_combination_that_cannot_work_is_refused_with_the_reason(overrides, message):
    with pytest.raises(ConfigError, match=message):
        config_of(*overrides)


def test_overrides_set_numbers_strings_lists_and_booleans():
    config = config_of(
        "federation.rounds=7",
        "generator.learning_rate=2e-4",
        "retriever.loss=lsr",
        'data.hold_out=["a", "b"]',
        "federation.deliver=false",
        "data.sites=some/where=else",
    )
    assert config.federation.rounds == 7
    assert config.generator.learning_rate == 2e-4
    assert config.retriever.loss == "lsr"
    assert config.data.hold_out == ("a", "b")
    assert config.federation.deliver is False
    assert config.data.sites == "some/where=else"


@pytest.mark.parametrize("override", ["federation.rounds", "=3", ".rounds=3", "federation.=3", ""])
def test_an_override_that_is_none_is_one_clear_sentence(override):
    with pytest.raises(ConfigError, match="expected section.key=value"):
        config_of(override)


def test_an_override_below_a_value_is_refused():
    with pytest.raises(ConfigError, match="name is a value, not a section"):
        config_of("name.first=x")


def test_what_is_written_is_complete_and_reads_as_the_same():
    config = config_of('data.only=["é"]', 'generator.lora.targets=["q_proj"]', "seed=9", "retriever.lsr_weight=0.1")
    text = config.to_toml()
    assert Config.from_toml(text) == config
    assert "tau_lm = 0.1" in text


def test_a_file_that_is_missing_or_no_text_is_one_clear_sentence(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nowhere.toml: no such scenario file; fedrag new DIR writes"):
        Config.from_file(tmp_path / "nowhere.toml")
    (tmp_path / "latin.toml").write_bytes('name = "é"'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin.toml: .*UTF-8"):
        Config.from_file(tmp_path / "latin.toml")


def test_sites_beside_the_scenario_come_before_those_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("project/sites", "project/here", "elsewhere/sites", "elsewhere/there"):
        (tmp_path / name).mkdir(parents=True)
    scenario = tmp_path / "project" / "scenario.toml"
    monkeypatch.chdir(tmp_path / "elsewhere")

    def sites(named: str, *overrides: str) -> str:
        scenario.write_text(f'name = "a"\n[data]\nsites = "{named}"\n', encoding="utf-8")
        return Config.from_file("../project/scenario.toml", overrides).data.sites

    assert sites("sites") == "../project/sites"
    assert sites("here") == "../project/here"
    assert sites("there") == "there"
    assert sites("nowhere") == "nowhere"
    assert sites(str(tmp_path / "elsewhere")) == str(tmp_path / "elsewhere")
    # what is typed on the command line is meant as everywhere else there
    assert sites("here", "data.sites=sites") == "sites"
    monkeypatch.chdir(tmp_path / "project")
    assert Config.from_file("scenario.toml").data.sites == "here"


def test_a_scenario_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        config_of().seed = 3  # type: ignore[misc]


def sections_of(model: type[BaseModel]) -> list[type[BaseModel]]:
    nested = [f.annotation for f in model.model_fields.values()]
    found = [kind for kind in nested if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return [model, *[section for kind in found for section in sections_of(kind)]]


def test_every_key_but_name_and_seed_of_a_section_is_described():
    for section in sections_of(Config)[1:]:
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"


# Schedules

G, R = "generator", "retriever"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "generator"}, [(G,)] * 5),
        ({"schedule": "retriever"}, [(R,)] * 5),
        ({"schedule": "joint"}, [(G, R)] * 5),
        ({"schedule": "alternate"}, [(G,), (R,), (G,), (R,), (G,)]),
        ({"schedule": "staged", "stage_rounds": 2}, [(R,), (R,), (G,), (G,), (G,)]),
        ({"schedule": "staged", "stage_rounds": 4, "stage_first": G}, [(G,), (G,), (G,), (G,), (R,)]),
    ],
)
def test_components_of_every_round_and_their_counts(settings: dict[str, Any], expected):
    config = FederationConfig.model_validate({"rounds": 5, **settings})
    rounds = [components_of(config, number) for number in range(1, 6)]
    assert rounds == expected
    for component in (G, R):
        assert rounds_training(config, component) == sum(component in trained for trained in rounds)
        for before in range(1, 7):
            so_far = sum(component in trained for trained in rounds[: before - 1])
            assert rounds_training(config, component, before=before) == so_far
    assert trained_components(config) == tuple(c for c in (G, R) if any(c in trained for trained in rounds))


@pytest.mark.parametrize(
    ("loss", "contrastive", "lsr", "expected"),
    [
        ("contrastive", "both", "query", True),
        ("contrastive", "query", "both", False),
        ("lsr", "both", "query", False),
        ("lsr", "query", "both", True),
        ("both", "query", "query", False),
        ("both", "both", "query", True),
        ("both", "query", "both", True),
    ],
)
def test_the_passage_side_is_trained_where_a_loss_in_use_trains_it(loss, contrastive, lsr, expected):
    settings = {"loss": loss, "contrastive": {"side": contrastive}, "lsr": {"side": lsr}}
    assert RetrieverConfig.model_validate(settings).trains_passage_side is expected


def test_the_documented_defaults_stand():
    assert GeneratorConfig().lora.rank == 16
    lsr = RetrieverConfig().lsr
    assert (lsr.tau_lm, lsr.tau_r, lsr.side, lsr.divergence) == (0.1, "auto", "query", "forward")
    assert (RetrieverConfig().contrastive.scale, RetrieverConfig().contrastive.side) == ("auto", "both")
