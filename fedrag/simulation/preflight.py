"""What a scenario needs of its sites and models, checked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from fedrag.components.base_models import required_models
from fedrag.components.model_check import require_tried
from fedrag.components.model_errors import naming_model
from fedrag.components.negatives_check import require_negatives
from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components, find_component
from fedrag.components.state import initial_state
from fedrag.config.scenario import Config
from fedrag.config.schedule import sites_asked, trained_components
from fedrag.data.canaries import with_canaries
from fedrag.data.questions import question_counts
from fedrag.data.site_folder import chosen_folders, load_site
from fedrag.dp.accounting import require_accounting
from fedrag.dp.site_noise import require_many_clients
from fedrag.errors import ConfigError, DataError
from fedrag.secure_sum.roster import MIN_SITES
from fedrag.secure_sum.sum_terms import threshold
from fedrag.simulation.poison import check_poison
from fedrag.text import plural
from fedrag.types import CANARY, SPLITS, Component, Site
from fedrag.weights.store import FetchedModel, verify_model


def check_scenario(config: Config, sites: Sequence[Site], components: Components = SHIPPED) -> None:
    """Refuse a scenario that cannot run to its end, and say why.

    Args:
        config: The scenario.
        sites: Those that take part.
        components: What can be trained, by name.

    Raises:
        ConfigError: It needs what the sites or the models lack.
        DataError: No site has questions to train on, or none to measure; a held-out site cannot be read.
        ModelError: A model is not fetched or was altered, lacks a layer that is to be adapted, or cannot be packed
            into 4 bits.
    """
    check_poison(config.simulation.poison, sites)
    _check_ranks(config, sites)
    if config.privacy.is_on:
        require_accounting()
    if config.simulation.site_noise.is_on:
        require_accounting("simulation.site_noise.epsilon")
    _check_training(config, sites, components)
    _check_evaluation(config, sites)
    models = required_models(config, components)
    for key, model in models.items():
        _check_kind(key, model, find_component(components, key).base_is_encoder)
        verify_model(model)
    for key, model in models.items():
        find_component(components, key).steps().check_base(config, model)
    require_negatives(config, sites)
    for key, model in models.items():
        require_tried(config, key, find_component(components, key), model)
    for name in trained_components(config.federation):
        with naming_model(models[name]) if name in models else nullcontext():
            initial_state(config, (name,), components)


def _check_ranks(config: Config, sites: Sequence[Site]) -> None:
    """Refuse a rank of a site that does not take part."""
    names = sorted(site.name for site in sites)
    if unknown := sorted(set(config.simulation.ranks) - set(names)):
        raise ConfigError(f"simulation.ranks names {unknown[0]}, but the sites that take part are {', '.join(names)}")


def training_sites(config: Config, folders: Sequence[Path]) -> list[Site]:
    """Return the data of sites as the scenario trains on it: with the canaries that it plants.

    Raises:
        DataError: A site is malformed, or has canaries of its own where the scenario plants some.
    """
    sites = [load_site(folder) for folder in folders]
    if not config.simulation.canaries:
        return sites
    for folder, site in zip(folders, sites, strict=True):
        if any(question.origin == CANARY for question in site.train):
            raise DataError(f"{folder}: has canaries of its own; simulation.canaries must be 0, or take them out first")
    return [with_canaries(site, config.simulation.canaries, config.seed) for site in sites]


def sites_that_train(config: Config, sites: Sequence[Site], components: Components = SHIPPED) -> list[Site]:
    """Return the sites with questions that train a component of the scenario; the others sit out."""
    trained = [find_component(components, name) for name in trained_components(config.federation)]
    counts = [question_counts(site, with_unanswered=config.iterates) for site in sites]
    return [
        site
        for site, told in zip(sites, counts, strict=True)
        if any(component.can_train(told, config) for component in trained)
    ]


def unused_negatives(config: Config, sites: Sequence[Site]) -> list[str]:
    """Return a line on hard negatives that questions name and no training uses; none where all is as one expects."""
    named = sum(bool(question.hard_negative_ids) for site in sites for question in site.train)
    settings, trains = config.retriever, "retriever" in trained_components(config.federation)
    if not named or not trains or not settings.uses_contrastive or settings.contrastive.named_negatives:
        return []
    return [
        f"{plural(named, 'question names', 'questions name')} hard negatives, and none is used: "
        "retriever.contrastive.named_negatives = 0"
    ]


def held_out_folders(config: Config) -> list[Path]:
    """Return the folders of the sites that a scenario names as held out."""
    root = Path(config.data.sites)
    return chosen_folders(root, only=config.data.hold_out) if config.data.hold_out else []


def _check_training(config: Config, sites: Sequence[Site], components: Components) -> None:
    """Require the questions that training needs: those each component learns from, and some at enough sites."""
    if not any(site.train or (config.iterates and site.unanswered) for site in sites):
        raise DataError(f"{config.data.sites}: no site has a training question; they stand in a site's train.jsonl")
    trained = {name: find_component(components, name) for name in trained_components(config.federation)}
    for component in trained.values():
        component.check_sites(config, sites)
    able = sites_that_train(config, sites, components)
    if len(able) < config.federation.min_sites:
        raise ConfigError(
            f"federation.min_sites = {config.federation.min_sites}, but {len(able)} of the sites in "
            f"{config.data.sites} have questions to train on; {len(able)} is the most it can be"
        )
    if config.federation.secure:
        _check_secure(config, len(able))
    if config.simulation.site_noise.is_on:
        require_many_clients(config, len(able))
    if config.federation.keep == "best":
        for name, component in trained.items():
            needs = "labelled_questions" if component.validates_labelled else component.learns_from(config)
            _check_validation(name, able, needs)


def _check_secure(config: Config, sites: int) -> None:
    """Require the sites that a secure sum of a round needs."""
    settings = config.federation
    asked = sites_asked(settings, sites)
    if asked < MIN_SITES:
        raise ConfigError(
            f"federation.secure = true needs {MIN_SITES} sites in a round, and there are {asked}: of two, each would "
            "learn the other's update from the sum"
        )
    if threshold(asked, settings.secure_colluding) > asked:
        raise ConfigError(
            f"federation.secure_colluding = {settings.secure_colluding}, but a round has {asked} sites: a secure sum "
            f"hides a site from the server and at most {asked - 2} that work with it"
        )


def _check_validation(component: Component, sites: Sequence[Site], needs: str) -> None:
    """Require questions by which the rounds of a component can be told apart."""
    asked = Site("", (), train=tuple(question for site in sites for question in site.validation))
    if not question_counts(asked)[needs]:
        kind = "labelled validation" if needs == "labelled_questions" else "validation"
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
    if config.evaluation.rates:
        _check_rates(config, sites)


def _check_rates(config: Config, sites: Sequence[Site]) -> None:
    """Require the questions by which each component's learning rate is chosen."""
    questions = [question for site in sites for question in site.validation]
    trained = trained_components(config.federation)
    for component, needed, found in (
        ("generator", "answered", any(question.answers for question in questions)),
        ("retriever", "labelled", any(question.passage_ids for question in questions)),
    ):
        if component in trained and not found:
            raise DataError(
                f"evaluation.rates chooses the {component}'s rate by validation questions, but no site has a "
                f"{needed} validation question in {config.data.sites}"
            )


def _check_kind(key: str, model: FetchedModel, encodes: bool) -> None:
    if (model.kind == "encoder") != encodes:
        is_one = "an encoder, no language model" if model.kind == "encoder" else "a language model, no encoder"
        raise ConfigError(f'models.{key} = "{model.name}" is {is_one}; see: fedrag models list')
