"""RALT: trains on answers alone, trains the adapter alone, and learns the same however a batch is split."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch

from fedrag.config.rag_settings import RagConfig
from fedrag.config.training_settings import GeneratorConfig, LoraSection
from fedrag.errors import ModelError, TrainingDiverged
from fedrag.models.generator import Generator
from fedrag.passes.decoding import decode
from fedrag.passes.memory_estimate import Footprint
from fedrag.rag.answer_scores import mean_log_probabilities
from fedrag.rag.pipeline import prompt_builder
from fedrag.rag.window import shown_passage
from fedrag.text import size_text
from fedrag.training.losses import answer_loss
from fedrag.training.optimizer import MasterOptimizer, Progress
from fedrag.training.ralt import answer_examples, epoch_batches, train_generator
from fedrag.types import Example, Passage, Question
from fedrag.weights.store import find_model

KINDS = ("causal", "seq2seq")
CONSTANT = {"schedule": "constant", "warmup": 0.0, "learning_rate": 1e-3, "clip_norm": 1e9}


def settings_of(**changes: Any) -> GeneratorConfig:
    return GeneratorConfig.model_validate(CONSTANT | changes)


def examples_of(generator: Generator) -> list[Example]:
    end = generator.tokenizer.eos_token_id
    ids = [generator.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("Where is it?", "Who", "A b")]
    return [Example(ids[0], [40, 41, end]), Example(ids[1], [77, end]), Example(ids[2] * 3, [50, 51, 52, 53, end])]


def without_dropout(generator: Generator) -> Generator:
    for module in generator.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):  # T5's attention
            module.dropout = 0.0
    return generator


def sharpen(generator: Generator) -> None:
    """Let the random model be confident: its output vectors are so short that no token can reach 10 %."""
    model = generator.model
    norm, factor = (model.decoder.final_layer_norm, 50.0) if generator.seq2seq else (model.model.norm, 10.0)
    with torch.no_grad():
        norm.weight *= factor


def base_hash(generator: Generator) -> str:
    digest = hashlib.sha256()
    for name, tensor in generator.model.state_dict().items():
        if "lora_" not in name:
            digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def largest_difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


# What is learnt


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_loss_is_that_of_answer_and_end_tokens_alone(load_generator, kind):
    generator = without_dropout(load_generator(kind))
    batch = examples_of(generator)
    scores = mean_log_probabilities(generator, batch)
    by_hand = -sum(s * len(e.answer) for s, e in zip(scores, batch, strict=True)) / sum(len(e.answer) for e in batch)
    result = train_generator(generator, batch, settings_of(), seed=0)
    assert result.loss == pytest.approx(by_hand, rel=1e-5)
    assert (result.steps, result.tokens) == (1, sum(e.length for e in batch))


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_is_that_of_the_models_own_loss_with_prompt_labels_of_minus_100(load_generator, kind):
    generator, other = without_dropout(load_generator(kind)), without_dropout(load_generator(kind))
    example = examples_of(generator)[0]
    ours = train_generator(generator, [example], settings_of(), seed=0).update
    prompt, answer = torch.tensor([example.prompt]), torch.tensor([example.answer])
    optimizer = MasterOptimizer(other.parameters(), settings_of())
    if kind == "seq2seq":
        loss = other.model(input_ids=prompt, labels=answer).loss
    else:
        labels = torch.cat([torch.full_like(prompt, -100), answer], dim=1)
        loss = other.model(input_ids=torch.cat([prompt, answer], dim=1), labels=labels).loss
    optimizer.add(optimizer.gradients(loss))
    optimizer.step(0.0)
    assert largest_difference(ours, optimizer.update()) < 1e-6
    assert max(np.abs(tensor).max() for tensor in ours.values()) > 5e-4


def test_leaving_the_end_token_out_is_another_loss_and_another_update(load_generator):
    results = []
    for last in (3, 2):
        generator = load_generator()
        example = examples_of(generator)[0]
        results.append(
            train_generator(generator, [Example(example.prompt, example.answer[:last])], settings_of(), seed=0)
        )
    assert abs(results[0].loss - results[1].loss) > 1e-3
    assert largest_difference(results[0].update, results[1].update) > 5e-4


@pytest.mark.parametrize("kind", KINDS)
def test_one_example_learnt_by_heart_is_said_exactly_and_ended(load_generator, kind):
    generator = without_dropout(load_generator(kind, rank=8, alpha=16.0))
    sharpen(generator)
    config = RagConfig(instruction="Answer.", answer_tokens=12)
    builder = prompt_builder(generator, config)
    prompt, answer = builder.example("Where?", ["It orbits Mars."]).prompt, builder.answer("Mars", end=True)
    assert answer[-1] == generator.tokenizer.eos_token_id
    settings = settings_of(learning_rate=1e-2, epochs=80, clip_norm=1.0, schedule="linear")
    result = train_generator(generator, [Example(prompt, answer)], settings, seed=0)
    assert result.last_loss < 0.1 < result.loss
    ids = decode(generator, [Example(prompt)], 12)[0]
    assert ids == answer
    assert builder.text(ids) == "Mars"


# What learns


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_adapter_changes_and_the_base_is_bit_identical_after(load_generator, kind):
    generator = load_generator(kind)
    before = base_hash(generator)
    with generator.untouched():
        base_scores = mean_log_probabilities(generator, examples_of(generator))
    received = {name: p.detach().numpy().copy() for name, p in generator.parameters().items()}
    result = train_generator(generator, examples_of(generator) * 4, settings_of(epochs=3), seed=0)
    assert base_hash(generator) == before
    assert result.update.keys() == received.keys()
    for name, parameter in generator.parameters().items():
        assert result.update[name].any(), name
        np.testing.assert_array_equal(parameter.detach().numpy() - received[name], result.update[name])
    with generator.untouched():
        np.testing.assert_array_equal(mean_log_probabilities(generator, examples_of(generator)), base_scores)
    assert not any(p.requires_grad for n, p in generator.model.named_parameters() if "lora_" not in n)


def test_the_received_float32_state_is_kept_where_the_model_computes_in_bfloat16(load_generator, random_tensors):
    generator = load_generator(dtype=torch.bfloat16)
    received = random_tensors(generator.parameters(), seed=4)
    generator.set_adapter(received)
    before = base_hash_bf16(generator)
    tiny = settings_of(learning_rate=1e-7)
    result = train_generator(generator, examples_of(generator), tiny, seed=0, received=received)
    assert base_hash_bf16(generator) == before
    largest = max(np.abs(tensor).max() for tensor in result.update.values())
    assert 0.5e-7 < largest < 2e-7  # the step, and no rounding of the received state


def base_hash_bf16(generator: Generator) -> str:
    tensors = (
        t.view(torch.int16).numpy().tobytes() for n, t in generator.model.state_dict().items() if "lora_" not in n
    )
    return hashlib.sha256(b"".join(tensors)).hexdigest()


# How it is computed


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_accumulated_over_parts_equal_those_of_the_batch(load_generator, kind):
    updates = []
    for micro_batch_tokens in (1, 30, 100_000):
        generator = without_dropout(load_generator(kind))
        settings = settings_of(micro_batch_tokens=micro_batch_tokens)
        updates.append(train_generator(generator, examples_of(generator), settings, seed=0).update)
    assert largest_difference(updates[0], updates[2]) < 1e-6
    assert largest_difference(updates[1], updates[2]) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bits_and_another_order_others(load_generator, kind):
    updates = []
    for seed in (1, 1, 2):
        generator = load_generator(kind)
        settings = settings_of(batch_size=1, epochs=2)
        updates.append(train_generator(generator, examples_of(generator), settings, seed=seed).update)
    assert largest_difference(updates[0], updates[1]) == 0.0
    assert largest_difference(updates[0], updates[2]) > 0.0


def test_a_later_round_goes_on_where_the_schedule_was(load_generator):
    """The first step of AdamW is proportional to its rate: 0.75 of the peak in round 1 of 2, 0.25 in round 2."""
    updates = []
    for index in (0, 1):
        generator = load_generator()
        settings = settings_of(schedule="linear")
        batch = examples_of(generator)
        updates.append(train_generator(generator, batch, settings, seed=0, progress=Progress(index, 2)).update)
    for name in updates[0]:
        np.testing.assert_allclose(updates[0][name], 3 * updates[1][name], atol=1e-7)


def test_fedprox_keeps_the_adapter_near_the_received_state(load_generator):
    norms = []
    for mu in (0.0, 100.0):
        generator = load_generator()
        settings = settings_of(batch_size=1, epochs=10)
        result = train_generator(generator, examples_of(generator), settings, seed=0, proximal_mu=mu)
        norms.append(sum(float((tensor**2).sum()) for tensor in result.update.values()) ** 0.5)
    assert norms[1] < 0.5 * norms[0]


def test_a_loss_that_is_not_finite_stops_the_training_before_anything_changes(load_generator):
    generator = load_generator()
    before = {name: p.detach().clone() for name, p in generator.parameters().items()}
    with pytest.raises(TrainingDiverged, match="loss is not finite"):
        train_generator(
            generator,
            examples_of(generator),
            settings_of(),
            seed=0,
            loss=lambda logits, labels: answer_loss(logits, labels) * float("nan"),
        )
    assert all(torch.equal(parameter, before[name]) for name, parameter in generator.parameters().items())
    assert not generator.model.training


def test_after_a_diverged_training_the_next_state_starts_clean(load_generator, random_tensors):
    received = random_tensors(load_generator().parameters(), seed=8)
    updates = []
    for diverges in (True, False):
        generator = load_generator()
        if diverges:
            wild = settings_of(learning_rate=1e30, batch_size=1, epochs=5)
            with pytest.raises(TrainingDiverged):
                train_generator(generator, examples_of(generator), wild, seed=0)
        generator.set_adapter(received)
        updates.append(train_generator(generator, examples_of(generator), settings_of(), seed=0).update)
    assert largest_difference(*updates) == 0.0


@pytest.mark.parametrize("dropout", [False, True])
def test_dropout_is_on_in_training_alone_and_only_if_asked_for(load_generator, dropout):
    generator = load_generator("seq2seq")
    training: list[bool] = []
    generator.model.register_forward_pre_hook(lambda module, _: training.append(module.training))
    train_generator(generator, examples_of(generator), settings_of(dropout=dropout), seed=0)
    mean_log_probabilities(generator, examples_of(generator))
    assert training == [dropout, False]


# Activation checkpointing


def layer_runs(generator: Generator, **changes: Any) -> int:
    """Train one batch and return how often its first linear layer computed: twice where it is checkpointed."""
    runs: list[None] = []
    first = next(module for name, module in generator.model.named_modules() if name.endswith((".q_proj", ".q")))
    hook = first.register_forward_pre_hook(lambda module, inputs: runs.append(None))
    free_bytes = changes.pop("free_bytes", None)
    train_generator(generator, examples_of(generator), settings_of(**changes), seed=0, free_bytes=free_bytes)
    hook.remove()
    return len(runs)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("causal", torch.float32), ("seq2seq", torch.float32), ("causal", torch.bfloat16)]
)
@pytest.mark.parametrize("dropout", [False, True])
def test_checkpointed_layers_learn_the_same_in_the_same_steps(load_generator, kind, dtype, dropout):
    """With dropout, what was dropped is dropped again."""
    curves: dict[str, list[float]] = {}
    updates = {}
    for choice in ("off", "on"):
        generator = load_generator(kind, dtype)
        curve = curves[choice] = []
        settings = settings_of(
            activation_checkpointing=choice, batch_size=2, epochs=4, micro_batch_tokens=40, dropout=dropout
        )
        updates[choice] = train_generator(
            generator,
            examples_of(generator),
            settings,
            seed=3,
            on_step=lambda done, of, loss, to=curve: to.append(loss),
        ).update
    assert len(curves["on"]) == 8
    assert curves["on"] == curves["off"]
    assert largest_difference(updates["on"], updates["off"]) == 0.0
    assert max(np.abs(tensor).max() for tensor in updates["on"].values()) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointed_layers_leave_the_base_and_the_scores_as_they_are(load_generator, kind):
    generator, other = load_generator(kind), load_generator(kind)
    before = base_hash(generator)
    assert layer_runs(generator, activation_checkpointing="on") == 2
    assert layer_runs(other, activation_checkpointing="off") == 1
    assert base_hash(generator) == before
    assert not any(p.requires_grad for n, p in generator.model.named_parameters() if "lora_" not in n)
    batch = examples_of(generator)
    np.testing.assert_array_equal(mean_log_probabilities(generator, batch), mean_log_probabilities(other, batch))
    assert layer_runs(generator, activation_checkpointing="off") == 1  # nothing of it stays


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_checkpointed_where_a_step_would_need_more_than_is_free(load_generator, kind, caplog):
    caplog.set_level("INFO", "fedrag.training")
    generator = load_generator(kind)
    need = Footprint.of(generator).step_bytes([examples_of(generator)])
    assert layer_runs(generator, free_bytes=need) == 1
    assert caplog.messages == []
    assert layer_runs(generator, free_bytes=need - 1) == 2
    assert caplog.messages == [
        "each layer computes its activations again in the backward pass: a step needs up to "
        f"{size_text(need)} more, and {size_text(need - 1)} are free"
    ]


def test_smaller_parts_of_a_batch_need_less_and_are_not_checkpointed(load_generator):
    generator = load_generator()
    need = Footprint.of(generator).step_bytes([examples_of(generator)])
    assert layer_runs(generator, free_bytes=need - 1, micro_batch_tokens=1) == 3  # passes, each once


def test_a_scenario_that_says_on_or_off_is_followed_whatever_is_free(load_generator, caplog):
    caplog.set_level("INFO", "fedrag.training")
    generator = load_generator()
    assert layer_runs(generator, free_bytes=0.0, activation_checkpointing="off") == 1
    assert caplog.messages == []
    assert layer_runs(generator, free_bytes=1e15, activation_checkpointing="on") == 2
    [message] = caplog.messages
    assert message.endswith("in the backward pass: the scenario says so")


def test_a_model_that_cannot_be_checkpointed_trains_as_it_is_unless_it_must(load_generator):
    generator = load_generator()
    generator.model.supports_gradient_checkpointing = False
    assert layer_runs(generator, free_bytes=0.0) == 1
    before = {name: p.detach().clone() for name, p in generator.parameters().items()}
    with pytest.raises(ModelError, match="LlamaForCausalLM cannot"):
        layer_runs(generator, activation_checkpointing="on")
    assert all(torch.equal(parameter, before[name]) for name, parameter in generator.parameters().items())


# Examples


SHOWN = [shown_passage(Passage(name, f"text of {name}")) for name in ("p1", "p0", "p2")]
QUESTION = Question("q", "Who?", ("Ada", "Ada L."), ("p0",))


def texts_of(generator: Generator, **rag: int) -> list[str]:
    examples = answer_examples(generator, [QUESTION], [SHOWN], RagConfig.model_validate({"passages": 3} | rag))
    return [generator.tokenizer.decode(example.prompt + example.answer) for example in examples]


def test_an_example_holds_the_passages_in_order_and_the_first_answer_with_its_end(load_generator):
    (text,) = texts_of(load_generator())
    assert "Passage: text of p1\n\nPassage: text of p0\n\nPassage: text of p2\n\nQuestion: Who?" in text
    assert text.endswith("assistant\nAda<|im_end|>")


def test_one_passage_a_prompt_makes_an_example_of_each(load_generator):
    texts = texts_of(load_generator(), passages_per_prompt=1)
    assert [text.count("Passage:") for text in texts] == [1, 1, 1]
    assert [name for text in texts for name in ("p1", "p0", "p2") if name in text] == ["p1", "p0", "p2"]
    assert all(text.endswith("Ada<|im_end|>") for text in texts)


def test_a_question_without_passages_has_one_example(load_generator):
    for size in (0, 1):
        (example,) = answer_examples(load_generator(), [QUESTION], [[]], RagConfig(passages_per_prompt=size))
        assert example.answer


@pytest.mark.parametrize(("examples", "batch_size"), [(10, 3), (7, 7), (5, 8), (1, 1)])
def test_every_epoch_sees_every_example_once_in_a_new_order(examples, batch_size):
    batches = epoch_batches(examples, batch_size, 3, seed=1)
    per_epoch = -(-examples // batch_size)
    assert len(batches) == 3 * per_epoch
    epochs = [sum(batches[i : i + per_epoch], []) for i in range(0, len(batches), per_epoch)]
    assert all(sorted(epoch) == list(range(examples)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1 or examples == 1
    assert batches == epoch_batches(examples, batch_size, 3, seed=1)


LOAVES = [
    ("How long does the dough rest?", "The dough rests for eighteen hours in the cold.", "eighteen hours"),
    ("Who owns the mill?", "The mill belongs to the village.", "the village"),
]


def loss_curve(dtype: torch.dtype) -> list[float]:
    generator = Generator.load(find_model("HuggingFaceTB/SmolLM2-135M-Instruct"), LoraSection(), dtype, "cpu")
    generator.set_adapter(generator.initial_state(seed=1))
    builder = prompt_builder(generator, RagConfig())
    examples = [
        builder.example(question, [passage], builder.answer(answer, end=True)) for question, passage, answer in LOAVES
    ]
    losses: list[float] = []
    settings = settings_of(epochs=4, batch_size=2)  # few: where bfloat16 is emulated, an epoch takes 15 s
    train_generator(generator, examples, settings, seed=0, on_step=lambda done, of, loss: losses.append(loss))
    return losses


@pytest.mark.slow
@pytest.mark.usefixtures("real_models")
def test_training_in_bfloat16_follows_training_in_float32():
    exact, short = loss_curve(torch.float32), loss_curve(torch.bfloat16)
    assert exact[-1] < exact[0] / 10
    assert short == pytest.approx(exact, abs=0.05 * exact[0])


@pytest.mark.slow
def test_the_real_generator_learns_an_answer_by_heart_and_its_base_stays(real_models):
    generator = Generator.load(
        find_model("HuggingFaceTB/SmolLM2-135M-Instruct"), LoraSection(rank=8), torch.bfloat16, "cpu"
    )
    builder = prompt_builder(generator, RagConfig())
    prompt = builder.example("How heavy is a loaf?", ["Each loaf weighs one kilogram."]).prompt
    answer = builder.answer("one kilogram", end=True)
    before = base_hash_bf16(generator)
    settings = settings_of(epochs=5, learning_rate=4e-3, clip_norm=1.0)
    result = train_generator(generator, [Example(prompt, answer)], settings, seed=0)
    assert result.last_loss < 0.05
    assert decode(generator, [Example(prompt)], 12)[0] == answer
    assert base_hash_bf16(generator) == before
