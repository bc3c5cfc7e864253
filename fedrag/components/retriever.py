"""The retriever: what the federation knows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedrag.components.spec import ComponentSpec, Steps
from fedrag.config.scenario import Config
from fedrag.errors import ConfigError
from fedrag.types import Component, Site


def _steps() -> Steps:
    from fedrag.components.retriever_steps import STEPS  # torch: a site's node knows the retriever without it

    return STEPS


def _base_models(config: Config) -> tuple[str, ...]:
    """LSR needs the generator's scores."""
    return ("retriever", "generator") if config.retriever.uses_lsr else ("retriever",)


def _learns_from(config: Config) -> str:
    """The contrastive loss needs labelled questions, LSR needs answers; together they learn from either."""
    if not config.retriever.uses_lsr:
        return "labelled_questions"
    return "train_questions" if config.retriever.uses_contrastive else "answered_questions"


def _most_questions(counts: Mapping[str, int], config: Config) -> int:
    """LSR draws `max_questions` of the answered ones; scores that have no weight teach nothing."""
    settings = config.retriever
    drawn = min(counts["answered_questions"], settings.lsr.max_questions or counts["answered_questions"])
    scored = drawn if settings.learns_from_scores else 0
    labelled = counts["labelled_questions"] if settings.uses_contrastive else 0
    return min(counts["train_questions"], labelled + scored)


def _examples_limit(counts: Mapping[str, int], config: Config) -> int:
    """The contrastive loss takes all labelled questions; LSR may take a part of the answered ones."""
    settings = config.retriever
    labelled = counts.get("labelled_questions", 0) if settings.uses_contrastive else 0
    answered = counts.get("answered_questions", 0) if settings.uses_lsr else 0
    return labelled + min(answered, settings.lsr.max_questions or answered)


def _needs_state_of(config: Config) -> tuple[Component, ...]:
    settings = config.retriever
    return ("generator",) if settings.uses_lsr and settings.lsr.scorer == "current" else ()


def _check_sites(config: Config, sites: Sequence[Site]) -> None:
    if config.iterates and any(site.unanswered for site in sites):
        return
    labelled = any(question.passage_ids for site in sites for question in site.train)
    if config.retriever.uses_contrastive and not labelled:
        raise ConfigError(
            f'retriever.loss = "{config.retriever.loss}" learns from labelled passages, but no site in '
            f'{config.data.sites} has a training question with passage_ids; "lsr" needs none'
        )
    if not config.retriever.uses_contrastive and not any(q.answers for site in sites for q in site.train):
        raise ConfigError(
            f'retriever.loss = "lsr" learns from answers, but no site in {config.data.sites} has a training question '
            'with one; "contrastive" learns from passage_ids'
        )


RETRIEVER = ComponentSpec(
    steps=_steps,
    base_models=_base_models,
    learns_from=_learns_from,
    most_questions=_most_questions,
    examples_limit=_examples_limit,
    needs_state_of=_needs_state_of,
    epochs=lambda config: config.retriever.epochs,
    check_sites=_check_sites,
    validates_labelled=True,
    base_is_encoder=True,
)
