"""A base in 4 bits: which weights are packed, and that the model computes with them and never trains them.

The reference is a plain model whose linear weights are what the packed codes stand for, unpacked by hand.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from tiny_federation import assert_same_state, tiny_config, write_small_sites
from torch import nn
from transformers import AutoModelForCausalLM

from fedrag.components.export import export_models
from fedrag.config.scenario import Config
from fedrag.config.training_settings import GeneratorConfig, LoraSection
from fedrag.data.site_folder import load_sites
from fedrag.errors import ModelError, RunError
from fedrag.files import read_json
from fedrag.models import resident
from fedrag.models.attention import use_cpu_attention
from fedrag.models.four_bits import WEIGHT_BYTES
from fedrag.models.generator import Generator, count_four_bit_weights
from fedrag.models.resident import RoundModels
from fedrag.passes.checkpointing import layers_checkpointed
from fedrag.passes.decoding import decode
from fedrag.passes.memory_estimate import Footprint
from fedrag.passes.reading import answer_logits
from fedrag.rag.answer_scores import mean_log_probabilities
from fedrag.simulation.plan import plan_lines
from fedrag.simulation.preflight import check_scenario
from fedrag.simulation.simulate import resume, simulate
from fedrag.text import size_text
from fedrag.training.losses import answer_loss
from fedrag.training.ralt import train_generator
from fedrag.types import Example, Tensors
from fedrag.weights.compute import best_device, computing_dtype
from fedrag.weights.store import count_parameters, find_model

bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install 'fedrag[4bit]'")
AdaptedLinear4bit = importlib.import_module("peft.tuners.lora.bnb").Linear4bit

KINDS = ("causal", "seq2seq")
REAL = "HuggingFaceTB/SmolLM2-135M-Instruct"
LORA = LoraSection(rank=4, alpha=8.0)
BLOCK = DIM = 64
# The sixteen levels of NF4 (QLoRA, appendix E).
LEVELS = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)

Random = Any  # the fixture `random_tensors`


@pytest.fixture(autouse=True)
def _wide(wide_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work with those models, and with none that other tests have loaded under the same names."""
    monkeypatch.setenv("FEDRAG_HOME", str(wide_home))
    monkeypatch.setattr(resident, "_RESIDENT", {})


def load(kind: str = "causal", four_bits: bool = True, **options: Any) -> Generator:
    """Load a tiny generator, untouched, by default in float32."""
    dtype = options.pop("dtype", torch.float32)
    return Generator.load(find_model(f"fedrag/tiny-{kind}"), LORA, dtype, "cpu", four_bits=four_bits, **options)


def packed_layers(generator: Generator) -> dict[str, nn.Linear]:
    """Return the 4-bit layers by the names that they have in a model without adapter."""
    return {
        name.removesuffix(".base_layer"): module
        for name, module in generator.model.named_modules()
        if isinstance(module, bitsandbytes.nn.Linear4bit)
    }


def unpacked(layer: nn.Linear) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights that the codes of a layer encode (out, in), and the scale of each weight, in float64."""
    state = layer.weight.quant_state
    codes = layer.weight.detach().numpy().reshape(-1)
    levels = LEVELS[np.stack([codes >> 4, codes & 15], axis=1).reshape(-1)]
    scale_levels, scale_scales = state.state2.code.double().numpy(), state.state2.absmax.double().numpy()
    scales = scale_levels[state.absmax.numpy()] * np.repeat(scale_scales, 256)[: state.absmax.numel()]
    by_weight = np.repeat(scales + float(state.offset), BLOCK)
    shape = (layer.out_features, layer.in_features)
    return (levels * by_weight).reshape(shape), by_weight.reshape(shape)


def plain_twin(generator: Generator, kind: str = "causal", **options: Any) -> Generator:
    """Return a model that was never packed, with the unpacked weights in its linear layers."""
    dtype = options.pop("dtype", torch.float32)
    twin = load(kind, four_bits=False, **options)
    twin.model.to(dtype)
    with torch.no_grad():
        for name, layer in packed_layers(generator).items():
            weight = twin.model.get_submodule(f"{name}.base_layer").weight
            weight.copy_(torch.from_numpy(unpacked(layer)[0]))
    return twin


def examples_of(generator: Generator) -> list[Example]:
    end = generator.tokenizer.eos_token_id
    ids = [generator.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Where is it?", "Who", "A b")]
    return [Example(ids[0], [40, 41, end]), Example(ids[1], [77, end]), Example(ids[2] * 3, [50, 51, 52, 53, end])]


def gradients(generator: Generator, checkpointed: bool = False) -> dict[str, torch.Tensor]:
    """Return the adapter's gradients of one training step."""
    for parameter in generator.parameters().values():
        parameter.requires_grad_(True)
    for module in generator.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):  # T5's attention
            module.dropout = 0.0
    generator.model.train()
    with layers_checkpointed(generator.model) if checkpointed else nullcontext():
        answer_loss(*answer_logits(generator, examples_of(generator))).backward()
    generator.model.train(False)
    return {name: parameter.grad for name, parameter in generator.parameters().items()}


def base_hash(generator: Generator) -> str:
    """Hash everything but the adapter: codes, scales, embeddings, norms."""
    digest = hashlib.sha256()
    for name, tensor in generator.model.state_dict().items():
        if "lora_" not in name:
            digest.update(name.encode() + tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    # Where attention cancels much out, single tensors are only as exact as float32 is: 3 in 1000 of their largest.
    largest = max(float(tensor.abs().max()) for tensor in theirs.values())
    for name, tensor in ours.items():
        assert theirs[name].any(), name
        torch.testing.assert_close(tensor.double(), theirs[name], atol=1e-5 * largest, rtol=0)


# What is packed


@pytest.mark.parametrize("kind", KINDS)
def test_the_linear_layers_stand_in_4_bits_and_the_head_does_not(kind: str):
    plain, generator = load(kind, four_bits=False), load(kind)
    head = plain.model.get_output_embeddings()
    linear = {
        name.removesuffix(".base_layer"): module.weight.numel()
        for name, module in plain.model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and "lora_" not in name
    }
    layers = packed_layers(generator)
    # T5's last layer of each block looks at the number format of its weights: the library leaves it alone.
    assert set(layers) == {name for name in linear if not name.endswith(".wo")}
    assert all(name.endswith(".wo") for name in set(linear) - set(layers))
    stored = 0
    for name, layer in layers.items():
        assert layer.weight.dtype == torch.uint8
        assert layer.weight.numel() == linear[name] / 2
        state = layer.weight.quant_state
        assert (state.absmax.dtype, state.absmax.numel()) == (torch.uint8, linear[name] / BLOCK)
        stored += layer.weight.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    weights = sum(linear[name] for name in layers)
    assert 0.125 < stored / (4 * weights) < 0.131
    assert count_four_bit_weights(generator.fetched) == weights
    assert WEIGHT_BYTES * weights == pytest.approx(stored, rel=0.01)  # scales of scales are fewer than one a tiny layer
    assert generator.model.get_output_embeddings().weight.dtype == generator.dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_each_weight_is_one_of_sixteen_levels_and_the_nearest(kind: str):
    plain, generator = load(kind, four_bits=False), load(kind)
    for name, layer in packed_layers(generator).items():
        fetched = plain.model.get_submodule(f"{name}.base_layer").weight.detach().double().numpy()
        ours, scales = unpacked(layer)
        gap = np.diff(LEVELS).max() / 2
        largest = np.abs(fetched).reshape(-1, BLOCK).max(axis=1)
        assert (np.abs(ours - fetched) <= (gap + 0.02) * scales).all()  # a scale in 8 bits is off by 2 % at most
        np.testing.assert_allclose(scales.reshape(-1, BLOCK)[:, 0], largest, rtol=0.02)
        assert len(np.unique(np.round(ours / scales, 6))) > 8
        theirs = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        np.testing.assert_allclose(theirs.numpy(), ours, atol=1e-7)


def test_the_adapter_is_in_the_number_format_of_computing():
    for dtype in (torch.float32, torch.bfloat16):
        generator = load(dtype=dtype)
        assert generator.dtype == dtype
        assert {parameter.dtype for parameter in generator.parameters().values()} == {dtype}


@pytest.mark.parametrize("kind", KINDS)
def test_the_adapter_has_the_names_and_shapes_of_one_on_the_unpacked_model(kind: str):
    shapes, packed = (
        {name: p.shape for name, p in load(kind, four_bits=four).parameters().items()} for four in (False, True)
    )
    assert shapes == packed


def test_activations_are_counted_by_the_shape_of_the_layer_and_not_of_its_codes():
    assert Footprint.of(load()) == Footprint.of(load(four_bits=False))


def test_nothing_is_said_while_a_model_is_packed(capfd: pytest.CaptureFixture[str]):
    generator = RoundModels(tiny_config(models={"generator_dtype": "nf4"}), {}).generator
    assert packed_layers(generator)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


# What it computes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_computes_with_what_its_codes_stand_for_and_its_adapter(dtype: torch.dtype, random_tensors: Random):
    generator = load(dtype=dtype)
    generator.set_adapter(random_tensors(generator.parameters()))
    tolerance = 3e-7 if dtype == torch.float32 else 3e-3
    chance = np.random.default_rng(1)
    for name, layer in packed_layers(generator).items():
        adapted = generator.model.get_submodule(name)
        assert isinstance(adapted, AdaptedLinear4bit)
        x = torch.from_numpy(chance.standard_normal((3, 5, layer.in_features))).to(dtype)
        down, up = (getattr(adapted, part)["default"].weight.detach().double().numpy() for part in ("lora_A", "lora_B"))
        by_hand = x.double().numpy() @ (unpacked(layer)[0] + LORA.alpha / LORA.rank * up @ down).T
        with torch.no_grad():
            error = np.abs(adapted(x).double().numpy() - by_hand).max()
        assert error < tolerance * np.abs(by_hand).max() * np.sqrt(layer.in_features)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_with_and_without_the_adapter_are_those_of_a_plain_model_with_the_unpacked_weights(
    kind: str, random_tensors: Random
):
    generator = load(kind)
    twin, fetched = plain_twin(generator, kind), load(kind, four_bits=False)
    tensors = random_tensors(generator.parameters())
    logits = []
    for model in (generator, twin, fetched):
        model.set_adapter(tensors)
        with torch.no_grad():
            adapted = answer_logits(model, examples_of(model))[0]
            with model.untouched():
                logits.append((adapted, answer_logits(model, examples_of(model))[0]))
    for ours, theirs, before in zip(*logits, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)
        assert (ours - before).abs().max() > 1e-3  # 4 bits are not the fetched weights
    assert (logits[0][0] - logits[0][1]).abs().max() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_a_plain_model_with_the_unpacked_weights(kind: str, random_tensors: Random):
    generator = load(kind)
    twin = plain_twin(generator, kind)
    for model in (generator, twin):
        model.set_adapter(random_tensors(generator.parameters(), scale=0.5))
    batch = examples_of(generator)
    assert decode(generator, batch, 6) == decode(twin, batch, 6)
    np.testing.assert_allclose(mean_log_probabilities(generator, batch), mean_log_probabilities(twin, batch), rtol=1e-5)


def test_an_adapter_that_acts_from_the_question_on_reads_what_is_before_with_the_packed_base(random_tensors: Random):
    generator = load()
    twin = plain_twin(generator)
    for model in (generator, twin):
        model.prefix_bytes = 1e6
    batch = [Example([40, 41, 42, 60, 61], [70, 71], prefix_ends=(3,)), Example([43, 44, 62], [72], prefix_ends=(2,))]
    logits = []
    for model in (generator, twin):
        model.set_adapter(random_tensors(generator.parameters()))
        logits.append(answer_logits(model, batch)[0])
    torch.testing.assert_close(*logits, atol=2e-6, rtol=1e-5)
    whole = load()
    whole.set_adapter(random_tensors(generator.parameters()))
    assert (answer_logits(whole, batch)[0] - logits[0]).abs().max() > 1e-3


# Training


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_a_plain_model_with_the_unpacked_weights(
    kind: str, checkpointed: bool, random_tensors: Random
):
    generator = load(kind)
    twin = plain_twin(generator, kind, dtype=torch.float64)
    for model in (generator, twin):
        model.set_adapter(random_tensors(generator.parameters(), scale=0.3))
    assert_close(gradients(generator, checkpointed), gradients(twin))


def test_what_ran_before_changes_nothing_on_a_processor_with_bfloat16_instructions(
    monkeypatch: pytest.MonkeyPatch, random_tensors: Random
):
    """There the library repacked the weights in place, at the first pass without gradient.

    From then on they were others, and no gradient went through them.
    """
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)
    generator = load()
    generator.set_adapter(random_tensors(generator.parameters(), scale=0.3))
    before = base_hash(generator)
    twin = plain_twin(generator, dtype=torch.float64)
    twin.set_adapter(random_tensors(generator.parameters(), scale=0.3))
    mean_log_probabilities(generator, examples_of(generator))
    decode(generator, examples_of(generator), 2)
    assert base_hash(generator) == before
    assert_close(gradients(generator), gradients(twin))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_only_the_adapter_learns_and_the_packed_base_is_bit_identical_after(kind: str, dtype: torch.dtype):
    generator = load(kind, dtype=dtype)
    before = base_hash(generator)
    with generator.untouched():
        base_scores = mean_log_probabilities(generator, examples_of(generator))
    settings = GeneratorConfig.model_validate(
        {"schedule": "constant", "warmup": 0.0, "learning_rate": 1e-2, "epochs": 40}
    )
    result = train_generator(generator, examples_of(generator), settings, seed=0)
    assert base_hash(generator) == before
    assert result.last_loss < 0.98 * result.loss
    assert result.update.keys() == generator.parameters().keys()
    assert all(tensor.any() for tensor in result.update.values())
    with generator.untouched():
        np.testing.assert_array_equal(mean_log_probabilities(generator, examples_of(generator)), base_scores)
    assert (mean_log_probabilities(generator, examples_of(generator)) > base_scores).all()


# In a federation


def four_bit_config(sites: Path, **settings: Any) -> Config:
    models = {"generator_dtype": "nf4"} | settings.pop("models", {})
    return tiny_config(sites, models=models, federation={"rounds": 1, "schedule": "joint"}, **settings)


def trained(config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Tensors]:
    """Run a scenario with newly loaded models; return the run and its state."""
    monkeypatch.setattr(resident, "_RESIDENT", {})
    run = simulate(config, out=folder)
    return run, run.load_result()


@pytest.mark.parametrize("adapter_from", ["start", "question"])
def test_a_federation_in_4_bits_runs_to_its_end_and_gives_the_same_bits_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter_from: str
):
    threads = torch.get_num_threads()
    sites = write_small_sites(tmp_path / "sites", a=2, b=3)
    settings: dict[str, Any] = {
        "generator": {"adapter_from": adapter_from, "epochs": 3},  # the first step of AdamW knows signs alone
        "retriever": {"loss": "lsr", "epochs": 3},
        "rag": {"instruction": "Answer.", "prompt_tokens": 300},  # room for a passage, so that scores differ
        "evaluation": {"split": "test"},
    }
    run, state = trained(four_bit_config(sites, **settings), tmp_path / "one", monkeypatch)
    again, same = trained(four_bit_config(sites, **settings), tmp_path / "two", monkeypatch)
    plain = four_bit_config(sites, models={"generator_dtype": "float32"}, **settings)
    _, other = trained(plain, tmp_path / "plain", monkeypatch)
    torch.set_num_threads(threads)
    assert_same_state(state, same)
    for component in ("generator", "retriever"):  # the answer scores that the retriever learns from are others too
        assert any((tensor != other[component][name]).any() for name, tensor in state[component].items()), component
    results = [read_json(folder.path / "results.json") for folder in (run, again)]
    assert results[0]["federated"] == results[1]["federated"]
    assert results[0]["federated"]["overall"]["n_questions"] == 4
    computing = str(computing_dtype("auto", best_device())).removeprefix("torch.")
    assert run.facts["dtype"] == {"generator": f"nf4 ({computing})", "retriever": "float32"}
    assert run.facts["versions"]["bitsandbytes"] == bitsandbytes.__version__


def test_a_run_that_began_in_another_number_format_is_not_resumed(tmp_path: Path):
    sites = write_small_sites(tmp_path / "sites", a=2, b=2)
    run = simulate(four_bit_config(sites), out=tmp_path / "run")
    facts = read_json(run.path / "run.json")
    facts["dtype"]["generator"] = "float32"
    (run.path / "run.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match=r"its dtype changed: generator"):
        resume(run.path)


def test_answer_scores_of_one_number_format_are_not_taken_for_those_of_another():
    keys = {
        name: RoundModels(tiny_config(models={"generator_dtype": name}), {}).generator_key(untouched=True)
        for name in ("nf4", "auto", "bfloat16", "float32")
    }
    assert len(set(keys.values())) == 3
    assert keys["auto"] == keys[str(computing_dtype("auto", best_device())).removeprefix("torch.")]


def test_an_exported_adapter_computes_in_peft_on_the_unpacked_base(random_tensors: Random, tmp_path: Path):
    generator = load()
    tensors = random_tensors(generator.parameters(), seed=3)
    generator.set_adapter(tensors)
    lora = LORA.model_dump()
    export_models(
        tiny_config(models={"generator_dtype": "nf4"}, generator={"lora": lora}), {"generator": tensors}, tmp_path
    )
    base = AutoModelForCausalLM.from_pretrained(generator.fetched.folder, dtype=torch.float32)
    use_cpu_attention(base)  # the same sums in the same order
    model = PeftModel.from_pretrained(base, tmp_path / "generator").eval()
    layers = packed_layers(generator)
    example = examples_of(generator)[0]
    ids = torch.tensor([example.prompt + example.answer])
    with torch.no_grad():
        for name, layer in layers.items():
            weight = model.get_submodule(f"base_model.model.{name}.base_layer").weight
            weight.copy_(torch.from_numpy(unpacked(layer)[0]))
        theirs = model(input_ids=ids).logits[0, len(example.prompt) - 1 : -1]
        ours = answer_logits(generator, [example])[0]
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)


def test_a_dry_run_counts_half_a_byte_a_weight_of_the_linear_layers(tmp_path: Path):
    sites = write_small_sites(tmp_path / "sites", a=2, b=2)
    [line] = [line for line in plan_lines(four_bit_config(sites)) if line.startswith("memory:")]
    linear = 2 * (4 * DIM * DIM + 3 * DIM * 2 * DIM)  # two layers: q k v o, gate up down
    rest = count_parameters(find_model("fedrag/tiny-causal").folder) - linear
    itemsize = computing_dtype("auto", best_device()).itemsize
    encoder = 4 * count_parameters(find_model("fedrag/tiny-encoder").folder)
    need = linear * (0.5 + 1 / 64 + 1 / 4096) + rest * itemsize + encoder
    assert line.startswith(f"memory: base models {size_text(need)} and ")


# Where the library is missing


@pytest.fixture
def _no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest)
    )


MISSING = (
    r"^models\.generator_dtype = \"nf4\" needs the library bitsandbytes; "
    r"run: pip install 'fedrag\[4bit\]'$"
)


@pytest.mark.usefixtures("_no_library")
def test_without_the_library_a_generator_in_4_bits_is_refused_and_any_other_loads():
    with pytest.raises(ModelError, match=MISSING):
        load()
    assert load(four_bits=False).dtype == torch.float32


@pytest.mark.usefixtures("_no_library")
def test_without_the_library_a_scenario_in_4_bits_is_refused_unless_it_needs_no_generator(tmp_path: Path):
    sites = load_sites(write_small_sites(tmp_path / "sites", a=2, b=2))
    with pytest.raises(ModelError, match=MISSING):
        check_scenario(four_bit_config(tmp_path / "sites"), sites)
    retriever_alone = {"rounds": 1, "schedule": "retriever"}
    settings = {"models": {"generator_dtype": "nf4"}, "federation": retriever_alone}
    check_scenario(tiny_config(tmp_path / "sites", **settings), sites)


def test_a_model_whose_rows_are_no_whole_blocks_is_refused(
    tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """On processors with AVX-512 the library unpacked such rows with the scales of others, and said nothing."""
    monkeypatch.setenv("FEDRAG_HOME", str(tiny_home))
    sentence = r"a layer of 32 inputs cannot .* a multiple of 64; set models\.generator_dtype = \"auto\"$"
    with pytest.raises(ModelError, match=f"^{sentence}"):
        load()
    sites = load_sites(write_small_sites(tmp_path / "sites", a=2, b=2))
    with pytest.raises(ModelError, match=f"^fedrag/tiny-causal: {sentence}"):
        check_scenario(four_bit_config(tmp_path / "sites"), sites)


# The real generator


@pytest.mark.slow
@pytest.mark.usefixtures("real_models")
def test_the_real_generator_in_4_bits_knows_the_capital_of_france(tiny_home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FEDRAG_HOME", str(tiny_home))
    generator = Generator.load(find_model(REAL), LoraSection(), torch.float32, "cpu", four_bits=True)
    prompt = generator.tokenizer("The capital of France is")["input_ids"]
    paris = generator.tokenizer(" Paris")["input_ids"]
    assert len(packed_layers(generator)) == 30 * 7
    assert np.exp(mean_log_probabilities(generator, [Example(prompt, paris)])[0]) > 0.5
