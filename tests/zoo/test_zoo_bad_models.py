"""Models that cannot work as they are: `models check` says in one sentence what is wrong, before anything is trained.

Tokens beyond the embedding, no end or padding token, lengths, routers and adapters: see tests/components.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from architectures import CAUSAL, ENCODERS, SEQ2SEQ, Architecture, Encoder
from building import build_encoder, build_generator
from life import fetched, scenario, two_sites, wrong
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router

from fedrag.weights.store import FetchedModel, ModelKind

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("zoo_home")]

Bad = Callable[..., FetchedModel]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_sites(tmp_path_factory.mktemp("sites"))


@pytest.fixture
def bad(tmp_path: Path) -> Bad:
    """Return a function that builds a model with other files, and takes it into the store."""

    def build(kind: ModelKind, name: str, model: Architecture, **files: dict[str, Any]) -> FetchedModel:
        build_one = build_encoder if isinstance(model, Encoder) else build_generator
        folder = build_one(name, model, tmp_path / "model", *([] if kind == "encoder" else [kind]))
        for file, changes in files.items():
            path = folder / f"{file}.json"
            settings = json.loads(path.read_text()) | changes
            path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
        return fetched(folder, kind, f"bad-{name}")

    return build


@pytest.mark.parametrize(("name", "limit"), [("gpt2", "max_position_embeddings"), ("mpt", "max_seq_len")])
def test_prompts_longer_than_the_positions_are_refused(bad, sites, name, limit):
    model = bad("causal", name, Architecture("bytes", {limit: 128}))
    assert wrong(scenario("generator", model, sites), "generator", model) == [
        "settings: rag.prompt_tokens = 192 and rag.answer_tokens = 8 are more than the 128 tokens that "
        f"causal/bad-{name} reads; lower them"
    ]


@pytest.mark.parametrize(
    ("template", "fault"),
    [("{{ raise_exception('no roles here') }}", "it fails (no roles here)"), ("{% for message in %}", "it fails")],
)
def test_a_chat_template_that_raises_or_does_not_parse_is_refused(bad, sites, template, fault):
    model = bad("causal", "qwen2", CAUSAL["qwen2"])
    (model.folder / "chat_template.jinja").write_text(template)
    [said] = wrong(scenario("generator", model, sites), "generator", model)
    assert said.startswith(f"settings: causal/bad-qwen2: its chat template cannot show a prompt: {fault}")
    assert said.endswith("; give the model a template that writes messages as they are, or remove it")


def test_a_decoder_that_starts_from_a_token_beyond_the_embedding_is_refused(bad, sites):
    start = {"decoder_start_token_id": 58100}
    model = bad("seq2seq", "marian", SEQ2SEQ["marian"], config=start, generation_config=start)
    assert wrong(scenario("generator", model, sites), "generator", model) == [
        "loading: its decoder starts from token 58100, beyond the 400 rows of the model's embedding; correct "
        "decoder_start_token_id in its config.json and generation_config.json, and fetch it again"
    ]


def test_a_decoder_without_a_token_to_start_from_is_refused(bad, sites):
    nothing = {"decoder_start_token_id": None, "bos_token_id": None}
    model = bad("seq2seq", "t5", SEQ2SEQ["t5"], config=nothing, generation_config=nothing)
    assert wrong(scenario("generator", model, sites), "generator", model) == [
        "loading: its configuration names no decoder_start_token_id: its decoder has no token to start from; "
        "name one in its config.json, and fetch it again"
    ]


NUMBERS = r"-?[\d.]+, transformers computes -?[\d.]+"
TOKENS = r"token \d of an answer is '.+', transformers' generate gives '.+'"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bart", f"loss: the loss is {NUMBERS}"),  # its decoder alone: transformers computes its loss unlike others
        ("bert", f"scoring: the score of an answer is {NUMBERS}"),  # a token sees those after it, padding too
        ("rwkv", f"generation: {TOKENS}"),  # reads padding as text
    ],
)
def test_a_model_that_fedrag_reads_wrongly_is_refused(bad, sites, name, said):
    model = bad("causal", name, Architecture("bytes"))
    [found] = wrong(scenario("generator", model, sites), "generator", model)
    assert re.fullmatch(f"{said}: fedrag does not read this model rightly; choose another", found)


def test_an_encoder_without_linear_layers_is_told_to_train_all_its_weights(bad, sites):
    model = bad("encoder", "squeezebert", ENCODERS["squeezebert"])
    assert wrong(scenario("retriever", model, sites), "retriever", model) == [
        "settings: encoder/bad-squeezebert: has no linear layer that an adapter could act on; a retriever can train "
        'all its weights: set retriever.weights = "full"'
    ]


@pytest.mark.parametrize("name", ["roberta", "roformer", "gpt2"])
def test_an_encoder_that_claims_more_tokens_than_it_has_positions_is_refused(bad, sites, name):
    model = bad("encoder", name, ENCODERS[name], sentence_bert_config={"max_seq_length": 4000})
    positions = 509 if name == "roberta" else 512
    assert wrong(scenario("retriever", model, sites), "retriever", model) == [
        f"length: claims to read 4000 tokens, but has {positions} positions; set model_max_length = {positions} in its "
        "tokenizer_config.json (or max_seq_length in sentence_bert_config.json), and fetch it again"
    ]


def test_a_roberta_without_model_max_length_is_refused(bad, sites):
    model = bad("encoder", "roberta", ENCODERS["roberta"], tokenizer_config={"model_max_length": None})
    [said] = wrong(scenario("retriever", model, sites), "retriever", model)
    assert said.startswith("length: claims to read 512 tokens, but has 509 positions; set model_max_length = 509 in")


def test_a_router_is_refused(sites, tmp_path):
    one = SentenceTransformer(str(build_encoder("bert", ENCODERS["bert"], tmp_path / "one")), device="cpu")
    sides = (list(copy.deepcopy(one).children()) for _ in range(2))
    router = SentenceTransformer(modules=[Router.for_query_document(*sides)], device="cpu")
    router.save(str(tmp_path / "router"), create_model_card=False)
    model = fetched(tmp_path / "router", "encoder", "bad-router")
    assert wrong(scenario("retriever", model, sites), "retriever", model) == [
        "settings: encoder/bad-router: is a Router, with modules of its own for each side; fedrag trains one encoder "
        "that serves both: fetch the folder of one of its sides (fedrag 0.1 exported Routers; fedrag export writes "
        "such folders)"
    ]
