"""The generator: what the federation knows of it."""

from __future__ import annotations

from fedrag.components.spec import ComponentSpec, Steps


def _steps() -> Steps:
    from fedrag.components.generator_steps import STEPS  # torch: a site's node knows the generator without it

    return STEPS


GENERATOR = ComponentSpec(
    steps=_steps,
    base_models=lambda config: ("retriever", "generator") if config.rag.passages else ("generator",),
    learns_from=lambda config: "train_questions",
    needs_state_of=lambda config: ("retriever",) if config.rag.passages else (),
    epochs=lambda config: config.generator.epochs,
    validation="mean log-probability of an answer token; higher is better",
)
