"""The generator: what it does. It learns to answer from retrieved passages (RALT)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fedrag.components.generator_check import try_generator
from fedrag.components.model_cards import write_generator_card
from fedrag.components.model_errors import naming_model
from fedrag.components.spec import Steps
from fedrag.components.work import Prepared, TrainingTerms, Work
from fedrag.config.averaging import averaging_of
from fedrag.config.scenario import Config
from fedrag.data.questions import count_distinct
from fedrag.dp.units import units_of
from fedrag.errors import ConfigError
from fedrag.models.adapters import initial_lora, lora_targets, save_adapter
from fedrag.models.attention_window import window_of
from fedrag.models.four_bits import WEIGHT_BYTES, require_bitsandbytes
from fedrag.models.generator import (
    Generator,
    adapter_shapes,
    check_four_bits,
    count_four_bit_weights,
    load_config,
    load_tokenizer,
    longest_text,
    model_without_weights,
)
from fedrag.models.resident import RoundModels, free_share, resident_generator
from fedrag.models.side_adapter import joined
from fedrag.passes.prefix import remembers_all
from fedrag.rag.answer_scores import score_answers
from fedrag.rag.prompt import PromptBuilder
from fedrag.rag.window import Shown, shown_hits
from fedrag.seeding import derive_seed
from fedrag.training.losses import AnswerLoss
from fedrag.training.private_generator import train_generator_privately
from fedrag.training.private_steps import NoisedSteps
from fedrag.training.process_group import Group
from fedrag.training.ralt import answer_examples, train_generator
from fedrag.training.result import OnStep, TrainingResult
from fedrag.training.shown_passages import find_training_passages
from fedrag.types import Example, Passage, Site, Tensors
from fedrag.weights.compute import best_device, computing_dtype
from fedrag.weights.store import FetchedModel, count_parameters, find_model

_NAME = "generator"
_TASKS = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}


def _initial_state(config: Config, seed: int) -> Tensors:
    shapes = adapter_shapes(find_model(config.models.generator), config.generator.lora)
    return initial_lora(shapes, seed)


def _prepare(work: Work) -> Prepared | None:
    """Retrieve passages for the site's questions and lay out prompts and answers."""
    if work.noise:
        return _prepare_with_noise(work, work.noise)
    examples = [example for part in work.searches for example in _examples(part)]
    answered = work.bench.site.answered
    if not examples:
        return None
    return Prepared(len(answered), lambda: _train(work, examples), count_distinct(answered))


def _prepare_with_noise(work: Work, noise: NoisedSteps) -> Prepared | None:
    """Lay out prompts and answers by what is protected as a whole, a question's without a look at another's."""
    rag, generator, answered = work.bench.config.rag, work.models.generator, work.bench.site.answered
    found = {q.id: shown for q, shown in zip(answered, _shown(work), strict=True)}
    units = [
        [example for question in unit for example in answer_examples(generator, [question], [found[question.id]], rag)]
        for unit in units_of(answered)
    ]
    if not units:
        return None
    return Prepared(len(answered), lambda: _train_with_noise(work, units, noise), count_distinct(answered))


def _examples(work: Work) -> list[Example]:
    return answer_examples(work.models.generator, work.bench.site.answered, _shown(work), work.bench.config.rag)


def _shown(work: Work) -> list[list[Shown]]:
    """Return the passages in the prompts of each answered question."""
    config, site = work.bench.config, work.bench.site
    if not config.rag.passages or not site.answered:
        return [[] for _ in site.answered]
    seed = derive_seed(work.seed(_NAME), "raft")
    return find_training_passages(work.models.retriever, work.index(), site, config, seed)


@dataclass(frozen=True, slots=True)
class _Training:
    """A round's training, as each of the processes that train together does it."""

    config: Config
    examples: list[Example]
    seed: int
    loss: AnswerLoss
    terms: TrainingTerms

    def __call__(
        self, group: Group, /, generator: Generator | None = None, on_step: OnStep | None = None
    ) -> TrainingResult:
        """Train, in a process that helps with models of its own."""
        generator = generator or RoundModels(self.config, {_NAME: self.terms["received"]}).generator
        return train_generator(
            generator,
            self.examples,
            self.config.generator,
            seed=self.seed,
            loss=self.loss,
            on_step=on_step,
            free_bytes=free_share(self.config.simulation, generator.model.device.type),
            group=group,
            **self.terms,
        )


def _train(work: Work, examples: list[Example]) -> TrainingResult:
    bench = work.bench
    training = _Training(bench.config, examples, work.seed(_NAME), bench.losses.answer, work.terms(_NAME))
    here = partial(training, generator=work.models.generator, on_step=work.on_step(_NAME))
    return bench.crew.run(here, training)


def _train_with_noise(work: Work, units: list[list[Example]], noise: NoisedSteps) -> TrainingResult:
    bench = work.bench
    return train_generator_privately(
        work.models.generator,
        units,
        bench.config.generator,
        noise,
        loss=bench.losses.answer,
        on_step=work.on_step(_NAME),
        **work.terms(_NAME),
    )


def _validate(work: Work) -> tuple[float, int]:
    """Return the log-probability of the answers and their number of tokens."""
    totals, counts = zip(*(_validate_part(part) for part in work.searches), strict=True)
    return math.fsum(totals), sum(counts)


def _validate_part(work: Work) -> tuple[float, int]:
    config, site = work.bench.config, work.bench.site
    shown: list[list[Shown]] = [[] for _ in site.validation]
    if config.rag.passages:
        shown = [shown_hits(ranking.best, _by_id(site), work.index()) for ranking in work.rankings()]
    answered = [(q, passages) for q, passages in zip(site.validation, shown, strict=True) if q.answers]
    questions, shown = [question for question, _ in answered], [passages for _, passages in answered]
    examples = answer_examples(work.models.generator, questions, shown, config.rag)
    means = score_answers(work.models.generator, examples, config.evaluation.batch_tokens)
    total = sum(float(mean) * len(example.answer) for mean, example in zip(means, examples, strict=True))
    return total, sum(len(example.answer) for example in examples)


def _by_id(site: Site) -> dict[str, Passage]:
    return {passage.id: passage for passage in site.passages}


def _export(config: Config, tensors: Tensors, folder: Path) -> None:
    """Write an adapter for PEFT, and how it is loaded."""
    generator = resident_generator(config, best_device())
    builder = PromptBuilder(generator.tokenizer, config.rag, seq2seq=generator.seq2seq)
    whole = generator.prefix_bytes is None
    tensors, lora = joined(tensors, config.generator.lora)
    save_adapter(
        folder,
        tensors,
        lora,
        generator.targets,
        generator.fetched.name,
        _TASKS[generator.fetched.kind],
        None if whole else builder.question_mark,
        generator.fetched.revision,
    )
    generator.tokenizer.save_pretrained(folder)
    prompt = builder.example("{question}", ["{passage}"] if config.rag.passages else []).prompt
    text = generator.tokenizer.decode(prompt)
    write_generator_card(folder, generator.fetched, seq2seq=generator.seq2seq, prompt=text, merges=whole)


def _check_base(config: Config, model: FetchedModel) -> None:
    if config.models.generator_dtype == "nf4":
        require_bitsandbytes()  # before the model's name comes in: the sentence is not about it
    with naming_model(model):
        PromptBuilder(load_tokenizer(model), config.rag, seq2seq=model.kind == "seq2seq")
        _check_prompt_length(config, model)
        _check_adapter(config, model)
        if config.models.generator_dtype == "nf4":
            check_four_bits(model)


def _check_prompt_length(config: Config, model: FetchedModel) -> None:
    """Refuse prompts that are longer than a model's positions reach; some models have no such limit."""
    limit = longest_text(model)
    prompt, answer = config.rag.prompt_tokens, config.rag.answer_tokens
    longest = max(prompt, answer) if model.kind == "seq2seq" else prompt + answer
    if limit is not None and longest > limit:
        raise ConfigError(
            f"rag.prompt_tokens = {prompt} and rag.answer_tokens = {answer} are more than the {limit} tokens "
            f"that {model.name} reads; lower them"
        )


def _check_adapter(config: Config, model: FetchedModel) -> None:
    """Refuse an adapter without a layer to act on, or that acts from the question on where the model cannot."""
    targets = lora_targets(model_without_weights(model), config.generator.lora)
    if targets.parameters and averaging_of(config.federation, _NAME).rule in ("svd", "exact"):
        raise ConfigError(
            f'federation.rule = "{averaging_of(config.federation, _NAME).rule}" does not know the experts of '
            f'{model.name}; name other layers in generator.lora.targets, or set federation.generator.rule = "ffa"'
        )
    if config.generator.adapter_from == "question" and targets.parameters:
        raise ConfigError(
            f'generator.adapter_from = "question" does not work on the experts of {model.name}; name other layers '
            'in generator.lora.targets, or set "start"'
        )
    if config.generator.adapter_from == "question":
        _check_window(config, model)


def _check_window(config: Config, model: FetchedModel) -> None:
    """Refuse an adapter that acts from the question on where the model does not keep what comes before it."""
    if not remembers_all(load_config(model, whole_texts=True)):
        raise ConfigError(
            f'generator.adapter_from = "question" needs a model that keeps the keys and values of all tokens; '
            f'{model.name} does not; set "start"'
        )
    window, longest = window_of(load_config(model)), config.rag.prompt_tokens + config.rag.answer_tokens
    if window is not None and longest > window:
        raise ConfigError(
            f'generator.adapter_from = "question" needs prompts and answers that fit the window of {model.name}, '
            f"{window} tokens; rag.prompt_tokens = {config.rag.prompt_tokens} and rag.answer_tokens = "
            f'{config.rag.answer_tokens} are {longest}: lower them, or set "start"'
        )


def _base_bytes(config: Config, model: FetchedModel) -> float:
    packed = count_four_bit_weights(model) if config.models.generator_dtype == "nf4" else 0
    dtype = computing_dtype(config.models.generator_dtype, best_device())
    return (count_parameters(model.folder) - packed) * dtype.itemsize + packed * WEIGHT_BYTES


STEPS = Steps(_initial_state, _prepare, _validate, _export, _check_base, _base_bytes, try_generator)
