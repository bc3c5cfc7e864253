"""What a scenario needs of its sites and models, checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transformers import AutoConfig

from fedrag.config.scenario import Config
from fedrag.config.schedule import trained_components
from fedrag.data.site_folder import chosen_folders, load_site
from fedrag.errors import ConfigError, DataError, ModelError
from fedrag.federation.exchange import can_train
from fedrag.models.four_bits import require_bitsandbytes
from fedrag.models.generator import check_four_bits, load_tokenizer
from fedrag.models.resident import initial_state, resident_retriever
from fedrag.models.retriever import Retriever
from fedrag.passes.prefix import remembers_all
from fedrag.site.client_app import question_counts
from fedrag.types import SPLITS, Component, Site
from fedrag.weights.base_models import required_models
from fedrag.weights.store import FetchedModel, fetch_command, verify_model


def check_scenario(config: Config, sites: Sequence[Site]) -> None:
    """Refuse a scenario that cannot run to its end, and say why.

    Args:
        config: The scenario.
        sites: Those that take part.

    Raises:
        ConfigError: It needs what the sites or the models lack.
        DataError: No site has questions to train on, or none to measure; a held-out site cannot be read.
        ModelError: A model is not fetched or altered, or lacks a layer that is to be adapted, or cannot stand in 4
            bits.
    """
    _check_training(config, sites)
    _check_evaluation(config, sites)
    models = required_models(config)
    for component, model in models.items():
        _check_kind(component, model)
        verify_model(model)
    with _loading(models["retriever"]):
        _check_chunks(config, resident_retriever(config, "cpu"))
    if "generator" in models:
        if config.models.generator_dtype == "nf4":
            require_bitsandbytes()  # before the model's name comes in: the sentence is not about it
        with _loading(models["generator"]):
            load_tokenizer(models["generator"])
            _check_prompt_length(config, models["generator"])
            _check_adapter(config, models["generator"])
            if config.models.generator_dtype == "nf4":
                check_four_bits(models["generator"])
    for component in trained_components(config.federation):
        with _loading(models[component]):
            initial_state(config, (component,))


def sites_that_train(config: Config, sites: Sequence[Site]) -> list[Site]:
    """Return the sites with questions that train a component of the scenario; the others sit out."""
    components = trained_components(config.federation)
    return [site for site in sites if any(can_train(question_counts(site), c, config) for c in components)]


def held_out_folders(config: Config) -> list[Path]:
    """Return the folders of the sites that a scenario names as held out."""
    root = Path(config.data.sites)
    return chosen_folders(root, only=config.data.hold_out) if config.data.hold_out else []


def _check_training(config: Config, sites: Sequence[Site]) -> None:
    """Require the questions that training needs: labelled ones for the contrastive loss, some at enough sites."""
    if not any(site.train for site in sites):
        raise DataError(f"{config.data.sites}: no site has a training question; they stand in a site's train.jsonl")
    components = trained_components(config.federation)
    labelled = any(question.passage_ids for site in sites for question in site.train)
    if "retriever" in components and config.retriever.uses_contrastive and not labelled:
        raise ConfigError(
            f'retriever.loss = "{config.retriever.loss}" learns from labelled passages, but no site in '
            f'{config.data.sites} has a training question with passage_ids; "lsr" needs none'
        )
    able = sites_that_train(config, sites)
    if len(able) < config.federation.min_sites:
        raise ConfigError(
            f"federation.min_sites = {config.federation.min_sites}, but {len(able)} of the sites in "
            f"{config.data.sites} have questions to train on; {len(able)} is the most it can be"
        )
    if config.federation.keep == "best":
        for component in components:
            _check_validation(component, able)


def _check_validation(component: Component, sites: Sequence[Site]) -> None:
    """Require questions by which the rounds of a component can be told apart; ranks need labelled ones."""
    needs_labels = component == "retriever"
    if not any(question.passage_ids or not needs_labels for site in sites for question in site.validation):
        kind = "labelled validation" if needs_labels else "validation"
        raise ConfigError(
            f'federation.keep = "best": no site has {kind} questions to tell the best {component} by; "last" needs none'
        )


def _check_evaluation(config: Config, sites: Sequence[Site]) -> None:
    """Require questions to measure, so that a long run does not end in an empty table."""
    split = config.evaluation.split
    if split == "none":
        return
    held_out = config.evaluation.sites == "held-out"
    measured = [load_site(folder) for folder in held_out_folders(config)] if held_out else sites
    if not any(site.split(s) for site in measured for s in (SPLITS if split == "all" else (split,))):
        which = "held-out site" if held_out else "site"
        raise DataError(
            f'{config.data.sites}: no {which} has a {split} question to measure; evaluation.split = "none" does without'
        )


def _check_kind(component: Component, model: FetchedModel) -> None:
    if (model.kind == "encoder") != (component == "retriever"):
        is_one = "an encoder, no language model" if model.kind == "encoder" else "a language model, no encoder"
        raise ConfigError(f'models.{component} = "{model.name}" is {is_one}; see: fedrag models list')


def _check_prompt_length(config: Config, generator: FetchedModel) -> None:
    """Refuse prompts that are longer than a model's positions reach; some models have no such limit."""
    settings = AutoConfig.from_pretrained(generator.folder, local_files_only=True, trust_remote_code=False)
    limit = getattr(settings, "max_position_embeddings", None)
    prompt, answer = config.rag.prompt_tokens, config.rag.answer_tokens
    longest = max(prompt, answer) if generator.kind == "seq2seq" else prompt + answer
    if isinstance(limit, int) and longest > limit:
        raise ConfigError(
            f"rag.prompt_tokens = {prompt} and rag.answer_tokens = {answer} are more than the {limit} tokens "
            f"that {generator.name} reads; lower them"
        )


def _check_adapter(config: Config, generator: FetchedModel) -> None:
    """Refuse an adapter that acts from the question on in a model that cannot remember what comes before."""
    if config.generator.adapter_from == "question":
        settings = AutoConfig.from_pretrained(generator.folder, local_files_only=True, trust_remote_code=False)
        if not remembers_all(settings):
            raise ConfigError(
                f'generator.adapter_from = "question" needs a model that keeps the keys and values of all tokens; '
                f'{generator.name} does not; set "start"'
            )


def _check_chunks(config: Config, retriever: Retriever) -> None:
    """Require that passages can be cut into what the retriever reads."""
    if config.rag.chunk_overlap >= retriever.chunk_tokens:
        raise ConfigError(
            f"rag.chunk_overlap = {config.rag.chunk_overlap}: must be smaller than the {retriever.chunk_tokens} "
            f"tokens of a passage that {retriever.fetched.name} reads"
        )
    if config.retriever.train_tokens <= retriever.special_tokens:
        raise ConfigError(
            f"retriever.train_tokens = {config.retriever.train_tokens}: {retriever.fetched.name} adds "
            f"{retriever.special_tokens} special tokens, nothing of a passage would be left"
        )


@contextmanager
def _loading(model: FetchedModel) -> Iterator[None]:
    """Name the model in what goes wrong; libraries tell of missing or damaged files in many ways."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{model.name}: {error}") from None
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{model.name}: cannot be loaded from {model.folder} ({reason}); run: {fetch_command(model)}"
        ) from error
