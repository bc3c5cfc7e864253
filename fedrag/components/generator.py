"""The generator: what the federation knows of it."""

from __future__ import annotations

from collections.abc import Sequence

from fedrag.components.spec import ComponentSpec, Steps
from fedrag.config.scenario import Config
from fedrag.errors import ConfigError
from fedrag.types import Site


def _steps() -> Steps:
    from fedrag.components.generator_steps import STEPS  # torch: a site's node knows the generator without it

    return STEPS


def _check_sites(config: Config, sites: Sequence[Site]) -> None:
    answered = any(question.answers for site in sites for question in site.train)
    if not answered and not (config.iterates and any(site.unanswered for site in sites)):
        raise ConfigError(
            f"the generator learns from answers, but no site in {config.data.sites} has a training question with one; "
            "federation.components = ['retriever'] needs none"
        )


GENERATOR = ComponentSpec(
    steps=_steps,
    base_models=lambda config: ("retriever", "generator") if config.rag.passages else ("generator",),
    learns_from=lambda config: "answered_questions",
    needs_state_of=lambda config: ("retriever",) if config.rag.passages else (),
    epochs=lambda config: config.generator.epochs,
    check_sites=_check_sites,
)
